"""Can the engine hand NVIDIA GPUs to a container: by NVIDIA's runtime, or by CDI descriptions."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from engine.deploy.docker import ContainerEngine, EngineInfo
from engine.environment.check import CheckStatus, Finding
from engine.environment.profile import ContainersProfile

CDI_KIND = "nvidia.com/gpu"
_PODMAN_CDI_FOLDERS = ("/etc/cdi", "/var/run/cdi")
_HEAD_BYTES = 4096
_INSTALL = (
    "Install NVIDIA's Container Toolkit "
    "(https://docs.nvidia.com/datacenter/cloud-native/container-toolkit/latest/install-guide.html), then "
)


@dataclass(frozen=True)
class GpuAccess:
    """`cdi` are the CDI devices or files for NVIDIA GPUs that the engine uses; `has_toolkit`: nvidia-ctk is here."""

    runtimes: tuple[str, ...]
    default_runtime: str | None
    cdi: tuple[str, ...]
    has_toolkit: bool
    is_podman: bool


def read_gpu_access(engine: ContainerEngine, info: EngineInfo, root: Path) -> GpuAccess:
    """What the engine tells and, for one of this machine, the CDI files in its folders under `root`."""
    # Docker uses CDI only where it names its folders; Podman names none and always does.
    folders = info.cdi_folders or (_PODMAN_CDI_FOLDERS if engine.is_podman else ())
    devices = tuple(device for device in info.cdi_devices if device.startswith(CDI_KIND))
    files = tuple(file for folder in folders for file in _cdi_files(root / folder.lstrip("/")))
    cdi = devices or (files if engine.is_local else ())
    return GpuAccess(info.runtimes, info.default_runtime, cdi, shutil.which("nvidia-ctk") is not None, engine.is_podman)


def judge_gpu_access(access: GpuAccess, profile: ContainersProfile) -> Finding:
    """Fail where the profile wants GPUs in containers and there is no way; else tell."""
    ways = [name for name in access.runtimes if "nvidia" in name]
    ways += [f"CDI ({', '.join(access.cdi[:3])})"] if access.cdi else []
    known = f"runtimes {', '.join(access.runtimes) or 'unknown'} (default {access.default_runtime or 'unknown'})"
    observed = f"GPUs by {' and '.join(ways)}; {known}" if ways else f"no NVIDIA runtime and no CDI devices; {known}"
    facts = {"runtimes": ",".join(access.runtimes), "default_runtime": access.default_runtime, "has_gpu": bool(ways)}
    if ways or not profile.gpu:
        return Finding(CheckStatus.PASS, observed, facts=facts)
    return Finding(CheckStatus.FAIL, observed, _remedy(access), facts)


def _remedy(access: GpuAccess) -> str:
    command = "`sudo nvidia-ctk runtime configure --runtime=docker && sudo systemctl restart docker`"
    if access.is_podman:
        command = "`sudo nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml`"
    return f"{command}." if access.has_toolkit else f"{_INSTALL}{command}."


def _cdi_files(folder: Path) -> list[str]:
    files = sorted(file for ending in ("*.yaml", "*.json") for file in folder.glob(ending))
    return [str(file) for file in files if CDI_KIND in _head(file)]


def _head(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            return stream.read(_HEAD_BYTES).decode("utf-8", "replace")
    except OSError:
        return ""
