"""The NVIDIA driver: does it answer, and if not, what stands in its way."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from engine.environment.check import CheckStatus, Fact, Finding
from engine.environment.gpu.container import GIVE_GPU, Container, read_container
from engine.environment.gpu.each import plural, severity, skip
from engine.environment.profile import GpuProfile
from engine.telemetry.nvml import GpuInventory

_NVIDIA_VENDOR = "0x10de"
_DISPLAY_CLASS = "0x03"  # VGA and 3D controllers; the same cards carry audio and USB functions too


@dataclass(frozen=True)
class PciGpu:
    """An NVIDIA card on the PCI bus; `kernel_driver` is what holds it, None for nothing."""

    address: str
    kernel_driver: str | None = None


@dataclass(frozen=True)
class HostGpus:
    """What the kernel tells of NVIDIA cards, without the driver's library."""

    cards: tuple[PciGpu, ...]
    is_module_loaded: bool
    container: Container
    is_wsl: bool = False


def read_host_gpus(root: Path) -> HostGpus:
    """Read /sys, /proc and /dev below `root`; what cannot be read counts as not there."""
    return HostGpus(
        cards=tuple(_read_pci_gpus(root / "sys/bus/pci/devices")),
        is_module_loaded=(root / "proc/driver/nvidia/version").exists(),
        container=read_container(root),
        is_wsl=(root / "dev/dxg").exists(),
    )


def judge_driver(inventory: GpuInventory, host: HostGpus, profile: GpuProfile) -> Finding:
    """Skip on a machine with no NVIDIA card; a card that no driver answers for fails where the profile needs one."""
    if inventory.driver_version is not None or inventory.reason is None:
        driver, cuda = inventory.driver_version or "not told", inventory.cuda_driver_version or "not told"
        told = {"driver_version": inventory.driver_version, "driver_cuda": inventory.cuda_driver_version}
        return Finding(CheckStatus.PASS, f"version {driver}, supports CUDA up to {cuda}", facts=told)
    if not host.cards and not host.is_module_loaded:
        return skip(f"no NVIDIA GPU on the PCI bus; {inventory.reason}")
    seen = f"{plural(len(host.cards), 'NVIDIA card')} on the PCI bus"
    holders = sorted({card.kernel_driver for card in host.cards if card.kernel_driver not in (None, "nvidia")})
    held = f", held by the kernel driver {', '.join(map(str, holders))}" if holders else ""
    facts: dict[str, Fact] = {"num_pci_gpus": len(host.cards), "driver_version": None}
    return Finding(severity(profile), f"{seen}{held}, but: {inventory.reason}", _remedy(inventory, host), facts)


def _remedy(inventory: GpuInventory, host: HostGpus) -> str:
    """The most particular remedy that applies."""
    holders = {card.kernel_driver for card in host.cards}
    if host.container in GIVE_GPU:
        return GIVE_GPU[host.container]
    if "nouveau" in holders:
        return (
            "Keep the nouveau driver off the card: `echo blacklist nouveau | sudo tee /etc/modprobe.d/nouveau.conf`, "
            "`sudo update-initramfs -u`, install the NVIDIA driver and restart."
        )
    if "vfio-pci" in holders:
        return "The card is set aside for virtual machines (vfio-pci): run the console in the one that has it."
    if "differ in version" in (inventory.reason or ""):
        return "Restart the machine, so that the kernel module of the updated driver is loaded."
    if host.is_module_loaded and "permission" in (inventory.reason or ""):
        return "Give this user access to /dev/nvidiactl: `ls -l /dev/nvidia*` names its group; `sudo usermod -aG`."
    return (
        "Install or repair the NVIDIA driver (https://www.nvidia.com/drivers), restart, and see that `nvidia-smi` "
        "answers; `sudo dmesg | grep -i nvrm` tells why a module did not load."
    )


def _read_pci_gpus(devices: Path) -> Iterator[PciGpu]:
    for device in sorted(devices.glob("*")):
        if _read(device / "vendor") == _NVIDIA_VENDOR and _read(device / "class").startswith(_DISPLAY_CLASS):
            driver = device / "driver"
            yield PciGpu(device.name, driver.resolve().name if driver.exists() else None)


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""
