from __future__ import annotations

import dataclasses

import pynvml
import pytest

from engine.telemetry.nvml import RETRY_AFTER_S, GpuReading, Nvml
from tests.engine.telemetry.fakes import GIB, HEALTHY, FakeBinding, FakeGpu, ManualClock


def test_two_healthy_gpus_are_read_in_base_units() -> None:
    inventory = Nvml(FakeBinding(FakeGpu("GPU-a"), FakeGpu("GPU-b"))).read()
    assert inventory.reason is None
    assert inventory.driver_version == "580.95.05"
    assert inventory.cuda_driver_version == "13.0"
    assert [gpu.uuid for gpu in inventory.gpus] == ["GPU-a", "GPU-b"]
    assert inventory.gpus[1] == GpuReading(
        index=1,
        uuid="GPU-b",
        name="NVIDIA H200",
        compute_capability=(9, 0),
        memory_used_bytes=20 * GIB,
        memory_total_bytes=140 * GIB,
        utilization_ratio=0.55,
        memory_utilization_ratio=0.07,
        power_w=412.5,
        power_limit_w=700.0,
        temperature_c=61,
        fan_ratio=0.3,
        sm_clock_hz=1_980_000_000,
        sm_clock_max_hz=1_980_000_000,
        memory_clock_hz=1_980_000_000,
    )


@pytest.mark.parametrize(
    "code",
    [
        pynvml.NVML_ERROR_NOT_SUPPORTED,
        pynvml.NVML_ERROR_FUNCTION_NOT_FOUND,
        pynvml.NVML_ERROR_NO_PERMISSION,
        pynvml.NVML_ERROR_NO_DATA,
    ],
)
def test_what_the_driver_cannot_tell_is_none_and_no_error(code: int) -> None:
    gpu = FakeGpu(errors=dict.fromkeys(HEALTHY, code))
    reading = Nvml(FakeBinding(gpu)).read().gpus[0]
    assert reading == GpuReading(index=0, uuid="GPU-0")


def test_an_idle_gpu_reads_zero_not_none() -> None:
    idle = dict(HEALTHY, nvmlDeviceGetFanSpeed=0, nvmlDeviceGetPowerUsage=0)
    reading = Nvml(FakeBinding(FakeGpu(answers=idle))).read().gpus[0]
    assert (reading.fan_ratio, reading.power_w) == (0.0, 0.0)


def test_a_gpu_lost_before_its_handle_does_not_hide_the_others() -> None:
    lost = FakeGpu(errors={"nvmlDeviceGetHandleByIndex": pynvml.NVML_ERROR_GPU_IS_LOST})
    inventory = Nvml(FakeBinding(FakeGpu("GPU-a"), lost, FakeGpu("GPU-c"))).read()
    assert [gpu.uuid for gpu in inventory.gpus] == ["GPU-a", None, "GPU-c"]
    assert [gpu.error for gpu in inventory.gpus] == [None, "GPU is lost", None]
    assert inventory.reason is None


def test_a_gpu_lost_midway_keeps_what_was_read_and_is_not_asked_again() -> None:
    binding = FakeBinding(FakeGpu(errors={"nvmlDeviceGetName": pynvml.NVML_ERROR_GPU_IS_LOST}))
    reading = Nvml(binding).read().gpus[0]
    assert reading.memory_total_bytes == 140 * GIB
    assert reading.temperature_c is None
    assert reading.error == "GPU is lost"
    assert "nvmlDeviceGetTemperature" not in binding.calls


def test_an_unexpected_error_costs_one_value_and_is_told() -> None:
    gpu = FakeGpu(errors={"nvmlDeviceGetPowerUsage": pynvml.NVML_ERROR_UNKNOWN})
    reading = Nvml(FakeBinding(gpu)).read().gpus[0]
    assert reading.power_w is None
    assert reading.error == "Unknown Error"
    assert reading.temperature_c == 61


def test_a_gpu_that_may_not_be_opened_says_so() -> None:
    gpu = FakeGpu(errors={"nvmlDeviceGetHandleByIndex": pynvml.NVML_ERROR_NO_PERMISSION})
    assert Nvml(FakeBinding(gpu)).read().gpus[0].error == "This user may not open the GPU."


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (pynvml.NVML_ERROR_LIBRARY_NOT_FOUND, "No NVIDIA driver library"),
        (pynvml.NVML_ERROR_DRIVER_NOT_LOADED, "kernel module is not loaded"),
        (pynvml.NVML_ERROR_NO_PERMISSION, "no permission"),
        (pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH, "updated without a restart"),
        (pynvml.NVML_ERROR_UNKNOWN, "cannot start: Unknown Error"),
    ],
)
def test_a_library_that_does_not_start_gives_its_reason(code: int, words: str) -> None:
    inventory = Nvml(FakeBinding(FakeGpu(), init_error=code)).read()
    assert inventory.gpus == ()
    assert inventory.driver_version is None
    assert inventory.reason is not None
    assert words in inventory.reason


def test_no_device_is_a_reason_and_the_driver_is_still_told() -> None:
    inventory = Nvml(FakeBinding()).read()
    assert inventory.reason == "The NVIDIA driver is loaded but lists no GPU."
    assert inventory.driver_version == "580.95.05"


def test_a_driver_that_cannot_count_is_a_reason() -> None:
    binding = FakeBinding(FakeGpu())
    binding.system_errors["nvmlDeviceGetCount"] = pynvml.NVML_ERROR_UNINITIALIZED
    assert Nvml(binding).read().reason == "The NVIDIA driver cannot list its GPUs: Uninitialized."


def test_the_library_starts_once_and_only_when_read() -> None:
    binding = FakeBinding(FakeGpu())
    nvml = Nvml(binding)
    assert binding.calls == []
    nvml.read()
    nvml.read()
    assert binding.calls.count("nvmlInit") == 1


def test_a_failed_start_is_tried_again_later_only() -> None:
    clock = ManualClock()
    binding = FakeBinding(FakeGpu(), init_error=pynvml.NVML_ERROR_DRIVER_NOT_LOADED)
    nvml = Nvml(binding, clock)
    first = nvml.read()
    binding.init_error = None
    clock.seconds += RETRY_AFTER_S - 1
    assert nvml.read() == first
    clock.seconds += 1
    assert nvml.read().reason is None
    assert binding.calls.count("nvmlInit") == 2


def test_close_shuts_down_what_was_started_once() -> None:
    binding = FakeBinding(FakeGpu())
    nvml = Nvml(binding)
    nvml.close()
    assert "nvmlShutdown" not in binding.calls
    nvml.read()
    nvml.close()
    nvml.close()
    assert binding.calls.count("nvmlShutdown") == 1
    assert nvml.read().reason is None


def test_close_does_not_raise_when_the_driver_is_gone() -> None:
    binding = FakeBinding(FakeGpu())
    binding.system_errors["nvmlShutdown"] = pynvml.NVML_ERROR_UNKNOWN
    nvml = Nvml(binding)
    nvml.read()
    nvml.close()
    assert "nvmlShutdown" in binding.calls


def test_readings_are_frozen() -> None:
    reading = GpuReading(index=0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        reading.index = 1  # type: ignore[misc]


def test_this_machine_gives_gpus_or_a_reason() -> None:
    nvml = Nvml()
    inventory = nvml.read()
    nvml.close()
    assert bool(inventory.gpus) is (inventory.reason is None)
