"""The device files through which CUDA reaches the driver: are they there, and may this user open them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from engine.environment.check import CheckStatus, Finding
from engine.environment.gpu.container import GIVE_GPU
from engine.environment.gpu.driver import HostGpus
from engine.environment.gpu.each import severity, skip
from engine.environment.profile import GpuProfile
from engine.telemetry.nvml import GpuHealth

_MISSING = "missing"
_UVM = "/dev/nvidia-uvm"


@dataclass(frozen=True)
class DeviceNode:
    """One device file; `error` is why it cannot be opened for reading and writing, None when it can."""

    path: str
    error: str | None = None

    @property
    def is_missing(self) -> bool:
        """Is there no such file."""
        return self.error == _MISSING


def node_names(gpus: Iterable[GpuHealth], host: HostGpus) -> tuple[str, ...]:
    """The files that have to be there; a GPU's has the number that the driver calls its minor number."""
    minors = [gpu.index if gpu.minor_number is None else gpu.minor_number for gpu in gpus]
    numbers = minors or range(len(host.cards))
    return ("nvidiactl", "nvidia-uvm", *(f"nvidia{number}" for number in numbers))


def read_nodes(root: Path, names: Iterable[str]) -> tuple[DeviceNode, ...]:
    """Open each file below `root`/dev and close it again: permissions alone do not show what a container may."""
    return tuple(_read_node(root / "dev" / name) for name in names)


def judge_nodes(
    nodes: tuple[DeviceNode, ...],
    host: HostGpus,
    profile: GpuProfile,
    does_driver_answer: bool = False,
    can_make: bool = False,
) -> Finding:
    """Fail (or warn, where the profile needs no GPU) for what is missing or may not be opened.

    `does_driver_answer` counts where /proc does not show the kernel module, as in some containers. `can_make` says
    that nvidia-modprobe is installed, which CUDA has make the file of unified memory when it is first used.
    """
    if host.is_wsl:
        return skip("the Windows Subsystem for Linux reaches the GPU through /dev/dxg, without these files")
    if not host.is_module_loaded and not does_driver_answer:
        return skip("the NVIDIA kernel module is not loaded, see the check of the driver")
    awaited = [node.path for node in nodes if can_make and node.is_missing and node.path == _UVM]
    wrong = [node for node in nodes if node.error is not None and node.path not in awaited]
    if not wrong:
        facts = {"num_device_nodes": len(nodes)}
        names = ", ".join(node.path for node in nodes if node.path not in awaited)
        later = f"; {_UVM} is made at the first use of CUDA" if awaited else ""
        return Finding(CheckStatus.PASS, f"this user may open {names}{later}", facts=facts)
    observed = "; ".join(f"{node.path}: {node.error}" for node in wrong)
    return Finding(severity(profile), observed, _remedy(wrong, host))


def _remedy(wrong: list[DeviceNode], host: HostGpus) -> str:
    if host.container in GIVE_GPU:
        return GIVE_GPU[host.container]
    if any(node.is_missing for node in wrong):
        return "Make the device files: `sudo nvidia-modprobe -u -c=0`, and see that `nvidia-smi` answers."
    paths = " ".join(node.path for node in wrong)
    return (
        f"Give this user access: `ls -l {paths}` names the group, then `sudo usermod -aG GROUP $USER` and log in anew."
    )


def _read_node(path: Path) -> DeviceNode:
    shown = f"/dev/{path.name}"
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CLOEXEC))
    except FileNotFoundError:
        return DeviceNode(shown, _MISSING)
    except OSError as error:
        return DeviceNode(shown, error.strerror or str(error))
    return DeviceNode(shown)
