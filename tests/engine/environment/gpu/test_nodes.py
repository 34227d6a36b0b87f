from __future__ import annotations

from pathlib import Path

from engine.environment.check import CheckStatus
from engine.environment.gpu.container import Container
from engine.environment.gpu.driver import HostGpus, PciGpu
from engine.environment.gpu.nodes import DeviceNode, judge_nodes, node_names, read_nodes
from engine.environment.profile import Bound, GpuProfile
from engine.telemetry.nvml import GpuHealth

NEEDED = GpuProfile(count=Bound(require=1, recommend=None))
HOST = HostGpus((PciGpu("0000:00:00.0", "nvidia"),), True, Container.NONE)


def test_names_follow_the_drivers_minor_numbers() -> None:
    gpus = (GpuHealth(0, minor_number=4), GpuHealth(1))
    assert node_names(gpus, HOST) == ("nvidiactl", "nvidia-uvm", "nvidia4", "nvidia1")
    assert node_names((), HOST) == ("nvidiactl", "nvidia-uvm", "nvidia0")


def test_files_are_really_opened(tmp_path: Path) -> None:
    (tmp_path / "dev/nvidia0").mkdir(parents=True)  # cannot be opened for writing, whoever asks
    (tmp_path / "dev/nvidiactl").touch()
    nodes = read_nodes(tmp_path, ("nvidiactl", "nvidia-uvm", "nvidia0"))
    assert [node.path for node in nodes] == ["/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia0"]
    assert [node.error for node in nodes] == [None, "missing", "Is a directory"]
    assert [node.is_missing for node in nodes] == [False, True, False]


def test_files_that_open_pass() -> None:
    finding = judge_nodes((DeviceNode("/dev/nvidiactl"), DeviceNode("/dev/nvidia0")), HOST, NEEDED)
    assert finding.status is CheckStatus.PASS
    assert finding.observed == "this user may open /dev/nvidiactl, /dev/nvidia0"


def test_a_missing_file_fails_with_the_command_that_makes_it() -> None:
    nodes = (DeviceNode("/dev/nvidiactl"), DeviceNode("/dev/nvidia-uvm", "missing"))
    finding = judge_nodes(nodes, HOST, NEEDED)
    assert (finding.status, finding.observed) == (CheckStatus.FAIL, "/dev/nvidia-uvm: missing")
    assert "sudo nvidia-modprobe -u -c=0" in (finding.remedy or "")
    assert judge_nodes(nodes, HOST, GpuProfile()).status is CheckStatus.WARN


def test_a_file_that_may_not_be_opened_names_the_group() -> None:
    finding = judge_nodes((DeviceNode("/dev/nvidia0", "Permission denied"),), HOST, NEEDED)
    assert finding.observed == "/dev/nvidia0: Permission denied"
    assert "usermod -aG" in (finding.remedy or "")
    assert "/dev/nvidia0" in (finding.remedy or "")


def test_in_a_container_the_remedy_is_the_container_engines() -> None:
    inside = HostGpus(HOST.cards, True, Container.ENGINE)
    finding = judge_nodes((DeviceNode("/dev/nvidia0", "missing"),), inside, NEEDED)
    assert "--gpus all" in (finding.remedy or "")


def test_without_the_module_and_on_wsl_it_skips() -> None:
    missing = (DeviceNode("/dev/nvidiactl", "missing"),)
    unloaded = HostGpus(HOST.cards, False, Container.NONE)
    assert judge_nodes(missing, unloaded, NEEDED).status is CheckStatus.SKIP
    assert judge_nodes(missing, unloaded, NEEDED, does_driver_answer=True).status is CheckStatus.FAIL
    windows = HostGpus((), False, Container.NONE, is_wsl=True)
    assert "/dev/dxg" in judge_nodes(missing, windows, NEEDED).observed
