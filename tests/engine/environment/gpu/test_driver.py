from __future__ import annotations

from pathlib import Path

import pytest

from engine.environment.check import CheckStatus
from engine.environment.gpu.container import Container
from engine.environment.gpu.driver import HostGpus, PciGpu, judge_driver, read_host_gpus
from engine.environment.profile import Bound, GpuProfile
from engine.telemetry.nvml import GpuInventory, GpuReading

NEEDED = GpuProfile(count=Bound(require=1, recommend=None))
BARE = HostGpus((), False, Container.NONE)
NO_LIBRARY = "No NVIDIA driver library (libnvidia-ml) is installed."


def host(*holders: str | None, is_loaded: bool = False, container: Container = Container.NONE) -> HostGpus:
    cards = tuple(PciGpu(f"0000:0{number}:00.0", holder) for number, holder in enumerate(holders))
    return HostGpus(cards, is_loaded, container)


def test_a_driver_that_answers_passes_with_its_versions() -> None:
    finding = judge_driver(GpuInventory((GpuReading(0),), "580.95.05", "13.0"), host("nvidia"), NEEDED)
    assert (finding.status, finding.observed) == (CheckStatus.PASS, "version 580.95.05, supports CUDA up to 13.0")
    assert finding.facts == {"driver_version": "580.95.05", "driver_cuda": "13.0"}


def test_a_version_that_is_not_told_is_said_so() -> None:
    assert judge_driver(GpuInventory((GpuReading(0),)), BARE, NEEDED).observed == (
        "version not told, supports CUDA up to not told"
    )


def test_without_a_card_it_skips_even_where_a_gpu_is_needed() -> None:
    finding = judge_driver(GpuInventory(reason=NO_LIBRARY), BARE, NEEDED)
    assert finding.status is CheckStatus.SKIP
    assert NO_LIBRARY in finding.observed


def test_a_card_without_a_driver_fails_or_warns_by_the_profile() -> None:
    inventory = GpuInventory(reason=NO_LIBRARY)
    assert judge_driver(inventory, host(None), NEEDED).status is CheckStatus.FAIL
    finding = judge_driver(inventory, host(None, None), GpuProfile())
    assert finding.status is CheckStatus.WARN
    assert finding.observed.startswith("2 NVIDIA cards on the PCI bus, but: No NVIDIA driver library")
    assert "Install or repair the NVIDIA driver" in (finding.remedy or "")


@pytest.mark.parametrize(
    ("seen", "reason", "words"),
    [
        (host("nouveau"), NO_LIBRARY, "blacklist nouveau"),
        (host("vfio-pci"), NO_LIBRARY, "virtual machines"),
        (host("nvidia", is_loaded=True), "library and its kernel module differ in version: ...", "Restart"),
        (host("nvidia", is_loaded=True), "This user has no permission to talk (/dev/nvidiactl).", "usermod -aG"),
        (host("nvidia", container=Container.ENGINE), NO_LIBRARY, "--gpus all"),
        (host("nvidia", container=Container.POD), NO_LIBRARY, "nvidia.com/gpu: 1"),
        (host(is_loaded=True), NO_LIBRARY, "Install or repair"),
    ],
)
def test_the_remedy_fits_what_stands_in_the_way(seen: HostGpus, reason: str, words: str) -> None:
    finding = judge_driver(GpuInventory(reason=reason), seen, NEEDED)
    assert finding.status is CheckStatus.FAIL
    assert words in (finding.remedy or "")


def test_what_holds_the_card_is_named() -> None:
    assert ", held by the kernel driver nouveau, but" in (
        judge_driver(GpuInventory(reason=NO_LIBRARY), host("nouveau"), NEEDED).observed
    )


def test_cards_are_read_without_their_audio_function(tmp_path: Path) -> None:
    devices = [("0x10de", "0x030200"), ("0x10de", "0x030000"), ("0x10de", "0x040300"), ("0x8086", "0x030000")]
    for number, (vendor, device_class) in enumerate(devices):
        folder = tmp_path / f"sys/bus/pci/devices/0000:00:0{number}.0"
        folder.mkdir(parents=True)
        (folder / "vendor").write_text(f"{vendor}\n", encoding="ascii")
        (folder / "class").write_text(f"{device_class}\n", encoding="ascii")
    (tmp_path / "sys/bus/pci/devices/0000:00:09.0").mkdir()
    (tmp_path / "sys/bus/pci/drivers/nouveau").mkdir(parents=True)
    (tmp_path / "sys/bus/pci/devices/0000:00:00.0/driver").symlink_to(tmp_path / "sys/bus/pci/drivers/nouveau")
    (tmp_path / "proc/driver/nvidia").mkdir(parents=True)
    (tmp_path / "proc/driver/nvidia/version").touch()
    seen = read_host_gpus(tmp_path)
    assert seen.cards == (PciGpu("0000:00:00.0", "nouveau"), PciGpu("0000:00:01.0", None))
    assert seen.is_module_loaded
    assert not seen.is_wsl


def test_an_empty_root_has_nothing(tmp_path: Path) -> None:
    assert read_host_gpus(tmp_path) == BARE
