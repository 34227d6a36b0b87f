from __future__ import annotations

from pathlib import Path

import pynvml
import pytest

from engine.environment.check import CheckStatus, run_checks
from engine.environment.gpu import (
    count_pci_gpus,
    cuda_major,
    describe_gpu,
    gpu_checks,
    judge_devices,
    judge_driver,
    judge_torch,
)
from engine.environment.python import TorchBuild
from engine.telemetry.nvml import GpuInventory, GpuReading, Nvml
from tests.engine.telemetry.fakes import FakeBinding, FakeGpu

NO_GPU = GpuInventory(reason="No NVIDIA driver library (libnvidia-ml) is installed.")
HEALTHY_GPU = GpuReading(0, name="NVIDIA H200", memory_total_bytes=150_000_000_000, temperature_c=35)
LOST_GPU = GpuReading(1, error="GPU is lost")
TWO_GPUS = GpuInventory((HEALTHY_GPU, LOST_GPU), "580.95.05", "13.0")


def inventory(cuda: str | None) -> GpuInventory:
    return GpuInventory((HEALTHY_GPU,), "580.95.05", cuda)


def test_all_checks_on_healthy_gpus(tmp_path: Path) -> None:
    nvml = Nvml(FakeBinding(FakeGpu(), FakeGpu()))
    driver, devices, torch = run_checks(gpu_checks(nvml, tmp_path))
    assert [driver.id, devices.id, torch.id] == ["gpu.driver", "gpu.devices", "gpu.torch"]
    assert (driver.status, driver.observed) == (CheckStatus.PASS, "version 580.95.05, supports CUDA 13.0")
    assert devices.status is CheckStatus.PASS
    assert torch.status is not CheckStatus.ERROR


def test_all_checks_without_a_driver_skip_with_the_reason(tmp_path: Path) -> None:
    nvml = Nvml(FakeBinding(init_error=pynvml.NVML_ERROR_LIBRARY_NOT_FOUND))
    driver, devices, _ = run_checks(gpu_checks(nvml, tmp_path))
    assert driver.status is devices.status is CheckStatus.SKIP
    assert "No NVIDIA driver library" in driver.observed


def test_a_card_without_a_working_driver_warns() -> None:
    assert judge_driver(NO_GPU, 0).status is CheckStatus.SKIP
    finding = judge_driver(NO_GPU, 2)
    assert finding.status is CheckStatus.WARN
    assert finding.observed.startswith("2 NVIDIA GPU(s) on the PCI bus")
    assert "Install or repair the NVIDIA driver" in (finding.remedy or "")


def test_a_driver_that_does_not_tell_its_version_passes() -> None:
    finding = judge_driver(GpuInventory((HEALTHY_GPU,)), 1)
    assert finding.observed == "version unknown, supports CUDA unknown"


def test_a_lost_gpu_fails_and_the_healthy_one_is_still_named() -> None:
    finding = judge_devices(TWO_GPUS)
    assert finding.status is CheckStatus.FAIL
    assert finding.observed == "0: NVIDIA H200, 150.0 GB, 35 °C; 1: GPU is lost"
    assert "XID errors of GPU 1" in (finding.remedy or "")


def test_what_a_gpu_cannot_tell_is_left_out() -> None:
    assert describe_gpu(GpuReading(3, name="NVIDIA T4")) == "3: NVIDIA T4"


@pytest.mark.parametrize(
    ("build", "machine", "status", "words"),
    [
        (None, NO_GPU, CheckStatus.FAIL, "make run"),
        (TorchBuild("2.13.0+cpu", None), NO_GPU, CheckStatus.PASS, ""),
        (TorchBuild("2.13.0", "13.0"), NO_GPU, CheckStatus.PASS, ""),
        (TorchBuild("2.13.0+cpu", None), inventory("13.0"), CheckStatus.WARN, "up to CUDA 13.0"),
        (TorchBuild("2.13.0+cpu", None), inventory(None), CheckStatus.WARN, "Install a CUDA build"),
        (TorchBuild("2.13.0", "13.0"), inventory("13.0"), CheckStatus.PASS, ""),
        (TorchBuild("2.13.0", "12.8"), inventory("12.2"), CheckStatus.PASS, ""),
        (TorchBuild("2.13.0", "12.8"), inventory("13.0"), CheckStatus.PASS, ""),
        (TorchBuild("2.13.0", "13.0"), inventory("12.8"), CheckStatus.FAIL, "one for CUDA 13"),
        (TorchBuild("2.13.0", "13.0"), inventory(None), CheckStatus.WARN, "does not say which CUDA"),
    ],
)
def test_torch_against_the_driver(
    build: TorchBuild | None, machine: GpuInventory, status: CheckStatus, words: str
) -> None:
    finding = judge_torch(build, machine)
    assert finding.status is status
    assert words in (finding.remedy or "")
    assert (finding.remedy is None) is (status is CheckStatus.PASS)


def test_torch_says_whether_cuda_is_available() -> None:
    build = TorchBuild("2.13.0+cu130", "13.0")
    assert judge_torch(build, inventory("13.0")).observed == (
        "torch 2.13.0+cu130, built with CUDA 13.0; the driver supports CUDA 13.0; CUDA is available"
    )
    assert "CUDA is not available: No NVIDIA driver library" in judge_torch(build, NO_GPU).observed


def test_cuda_versions_compare_by_major() -> None:
    assert cuda_major("12.8") == 12


def test_pci_gpus_are_counted_without_their_audio_function(tmp_path: Path) -> None:
    devices = [("0x10de", "0x030200"), ("0x10de", "0x030000"), ("0x10de", "0x040300"), ("0x8086", "0x030000")]
    for number, (vendor, device_class) in enumerate(devices):
        folder = tmp_path / f"0000:00:0{number}.0"
        folder.mkdir()
        (folder / "vendor").write_text(f"{vendor}\n", encoding="ascii")
        (folder / "class").write_text(f"{device_class}\n", encoding="ascii")
    (tmp_path / "0000:00:09.0").mkdir()
    assert count_pci_gpus(tmp_path) == 2
    assert count_pci_gpus(tmp_path / "missing") == 0
