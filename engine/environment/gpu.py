"""Checks of the NVIDIA driver, each GPU, and whether the installed torch fits them."""

from __future__ import annotations

from pathlib import Path

from engine.environment.check import Check, CheckStatus, Finding, format_gb
from engine.environment.python import TorchBuild, read_torch_build
from engine.telemetry.nvml import GpuInventory, GpuReading, Nvml

_NVIDIA_VENDOR = "0x10de"
_DISPLAY_CLASS = "0x03"  # VGA and 3D controllers; the same cards carry audio and USB functions too
_DRIVER_REMEDY = "Install or repair the NVIDIA driver and restart, then run `nvidia-smi` to see that it answers."


def gpu_checks(nvml: Nvml, pci_devices: Path = Path("/sys/bus/pci/devices")) -> tuple[Check, ...]:
    """The checks of GPUs; each reads `nvml` for itself, so that a driver that hangs stops only these."""
    return (
        Check(
            "gpu.driver",
            "NVIDIA driver",
            "answers, where there is an NVIDIA GPU",
            lambda: judge_driver(nvml.read(), count_pci_gpus(pci_devices)),
        ),
        Check("gpu.devices", "GPUs", "each one answers", lambda: judge_devices(nvml.read())),
        Check(
            "gpu.torch",
            "PyTorch and CUDA",
            "a CUDA build no newer than the driver, where there is a GPU",
            lambda: judge_torch(read_torch_build(), nvml.read()),
        ),
    )


def judge_driver(inventory: GpuInventory, num_pci_gpus: int) -> Finding:
    """Skip on a machine with no NVIDIA GPU; warn where a card is plugged in and cannot be used."""
    if inventory.reason is None:
        driver, cuda = inventory.driver_version or "unknown", inventory.cuda_driver_version or "unknown"
        return Finding(CheckStatus.PASS, f"version {driver}, supports CUDA {cuda}")
    if num_pci_gpus:
        observed = f"{num_pci_gpus} NVIDIA GPU(s) on the PCI bus, but: {inventory.reason}"
        return Finding(CheckStatus.WARN, observed, _DRIVER_REMEDY)
    return Finding(CheckStatus.SKIP, inventory.reason)


def judge_devices(inventory: GpuInventory) -> Finding:
    """One clause a GPU; fail if any of them reports an error."""
    if inventory.reason is not None:
        return Finding(CheckStatus.SKIP, inventory.reason)
    observed = "; ".join(describe_gpu(gpu) for gpu in inventory.gpus)
    broken = [str(gpu.index) for gpu in inventory.gpus if gpu.error is not None]
    if not broken:
        return Finding(CheckStatus.PASS, observed)
    remedy = f"Look in `dmesg` for XID errors of GPU {', '.join(broken)}; reset it (`nvidia-smi -r`) or restart."
    return Finding(CheckStatus.FAIL, observed, remedy)


def describe_gpu(gpu: GpuReading) -> str:
    """`0: NVIDIA H200, 150.8 GB, 35 °C`, less what the driver cannot tell, then the error if there is one."""
    known = (
        gpu.name,
        None if gpu.memory_total_bytes is None else format_gb(gpu.memory_total_bytes),
        None if gpu.temperature_c is None else f"{gpu.temperature_c} °C",
        gpu.error,
    )
    return f"{gpu.index}: " + ", ".join(part for part in known if part is not None)


def judge_torch(build: TorchBuild | None, inventory: GpuInventory) -> Finding:
    """Does the installed torch run on the GPUs here; a build without CUDA is right where there are none.

    Within one CUDA major version an older driver still runs a newer build (NVIDIA's minor-version
    compatibility), so the major versions decide.
    """
    if build is None:
        return Finding(CheckStatus.FAIL, "torch is not installed", "Run `make run`, which installs the pinned one.")
    cuda = f"with CUDA {build.cuda_version}" if build.cuda_version else "without CUDA"
    observed = f"torch {build.version}, built {cuda}"
    if inventory.reason is not None:
        return Finding(CheckStatus.PASS, f"{observed}; CUDA is not available: {inventory.reason}")
    driver = inventory.cuda_driver_version
    if build.cuda_version is None:
        return Finding(CheckStatus.WARN, f"{observed}, but there is a GPU", _cuda_build_remedy(driver))
    if driver is None:
        remedy = "Update the NVIDIA driver: it does not say which CUDA it supports."
        return Finding(CheckStatus.WARN, f"{observed}; the driver's CUDA version is unknown", remedy)
    observed = f"{observed}; the driver supports CUDA {driver}"
    if cuda_major(driver) >= cuda_major(build.cuda_version):
        return Finding(CheckStatus.PASS, f"{observed}; CUDA is available")
    remedy = f"Update the NVIDIA driver to one for CUDA {cuda_major(build.cuda_version)}, or: "
    return Finding(CheckStatus.FAIL, observed, remedy + _cuda_build_remedy(driver))


def cuda_major(version: str) -> int:
    """The 12 of `12.8`."""
    return int(version.split(".", 1)[0])


def count_pci_gpus(pci_devices: Path) -> int:
    """NVIDIA display controllers on the PCI bus, driver or not; 0 where the bus cannot be read."""
    return sum(1 for device in sorted(pci_devices.glob("*")) if _is_nvidia_gpu(device))


def _is_nvidia_gpu(device: Path) -> bool:
    try:
        vendor = (device / "vendor").read_text(encoding="ascii").strip()
        device_class = (device / "class").read_text(encoding="ascii").strip()
    except OSError:
        return False
    return vendor == _NVIDIA_VENDOR and device_class.startswith(_DISPLAY_CLASS)


def _cuda_build_remedy(driver_cuda: str | None) -> str:
    newest = f" (the driver supports up to CUDA {driver_cuda})" if driver_cuda else ""
    return f"Install a CUDA build of torch from https://pytorch.org/get-started/locally/{newest}."
