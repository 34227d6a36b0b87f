from __future__ import annotations

from pathlib import Path

import pytest

from engine.deploy.docker import ContainerEngine, EngineInfo
from engine.environment.check import CheckStatus
from engine.environment.containers.gpu_access import GpuAccess, judge_gpu_access, read_gpu_access
from engine.environment.profile import ContainersProfile

ANY, GPU = ContainersProfile(), ContainersProfile(gpu=True)
DOCKER = ContainerEngine("unix:///var/run/docker.sock", "Docker Engine")
PODMAN = ContainerEngine("unix:///run/podman/podman.sock", "Podman Engine")
BARE = GpuAccess(("runc",), "runc", (), has_toolkit=True, is_podman=False)


def write_spec(root: Path, kind: str = "nvidia.com/gpu") -> Path:
    file = root / "etc/cdi/devices.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(f"cdiVersion: 0.6.0\nkind: {kind}\ndevices: []\n")
    return file


def test_the_runtime_passes(tmp_path: Path) -> None:
    access = read_gpu_access(DOCKER, EngineInfo(runtimes=("nvidia", "runc"), default_runtime="runc"), tmp_path)
    finding = judge_gpu_access(access, GPU)
    assert finding.status is CheckStatus.PASS
    assert finding.observed == "GPUs by nvidia; runtimes nvidia, runc (default runc)"


def test_cdi_devices_pass(tmp_path: Path) -> None:
    info = EngineInfo(runtimes=("runc",), cdi_devices=("nvidia.com/gpu=0", "vendor.com/nic=0"))
    access = read_gpu_access(DOCKER, info, tmp_path)
    assert access.cdi == ("nvidia.com/gpu=0",)
    assert judge_gpu_access(access, GPU).status is CheckStatus.PASS


def test_cdi_files_count_where_the_engine_looks_for_them(tmp_path: Path) -> None:
    file = write_spec(tmp_path)
    assert read_gpu_access(DOCKER, EngineInfo(cdi_folders=("/etc/cdi",)), tmp_path).cdi == (str(file),)
    assert read_gpu_access(PODMAN, EngineInfo(), tmp_path).cdi == (str(file),)
    assert read_gpu_access(DOCKER, EngineInfo(), tmp_path).cdi == ()
    far = ContainerEngine("tcp://engine:2375", "Docker Engine")
    assert read_gpu_access(far, EngineInfo(cdi_folders=("/etc/cdi",)), tmp_path).cdi == ()


def test_another_vendors_file_does_not_count(tmp_path: Path) -> None:
    write_spec(tmp_path, "vendor.com/nic")
    assert read_gpu_access(PODMAN, EngineInfo(), tmp_path).cdi == ()


def test_no_way_fails_where_gpus_are_wanted() -> None:
    finding = judge_gpu_access(BARE, GPU)
    assert finding.status is CheckStatus.FAIL
    assert finding.remedy == ("`sudo nvidia-ctk runtime configure --runtime=docker && sudo systemctl restart docker`.")


def test_no_way_is_told_where_none_is_wanted() -> None:
    finding = judge_gpu_access(BARE, ANY)
    assert finding.status is CheckStatus.PASS
    assert finding.observed == "no NVIDIA runtime and no CDI devices; runtimes runc (default runc)"


@pytest.mark.parametrize(
    ("has_toolkit", "is_podman", "remedy"),
    [(False, False, "Install NVIDIA's Container Toolkit"), (True, True, "nvidia-ctk cdi generate")],
)
def test_the_remedy_fits_the_machine(has_toolkit: bool, is_podman: bool, remedy: str) -> None:
    access = GpuAccess((), None, (), has_toolkit, is_podman)
    assert remedy in (judge_gpu_access(access, GPU).remedy or "")
