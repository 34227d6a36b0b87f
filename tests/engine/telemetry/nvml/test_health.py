from __future__ import annotations

from types import SimpleNamespace

import pynvml
import pytest

from engine.telemetry.nvml import (
    ClockEvent,
    EccReading,
    GpuHealth,
    GpuProcess,
    MigReading,
    Nvml,
    PcieReading,
    RemappedRows,
)
from engine.telemetry.nvml.health import CLOCK_EVENT_BITS
from tests.engine.telemetry.fakes import GIB, HEALTHY, FakeBinding, FakeGpu, healthy_but, no_such_thing


def health(**changes: object) -> GpuHealth:
    return Nvml(FakeBinding(FakeGpu(answers=healthy_but(**changes)))).read_health().gpus[0]


def test_a_healthy_gpu_in_full() -> None:
    assert health() == GpuHealth(
        index=0,
        uuid="GPU-0",
        name="NVIDIA H200",
        minor_number=0,
        is_data_center=True,
        ecc=EccReading(True, True, 0, 0, 0, 0),
        remapped_rows=RemappedRows(0, 0, False, False),
        is_retirement_pending=False,
        clock_events=(),
        pcie=PcieReading(5, 5, 16, 16),
        is_persistent=True,
        mig=MigReading(False, False, 0),
        power_limit_w=700.0,
        power_limit_default_w=700.0,
        utilization_ratio=0.55,
        memory_used_bytes=20 * GIB,
        memory_total_bytes=140 * GIB,
        processes=(),
        num_nvlinks=18,
        num_nvlinks_active=18,
    )


@pytest.mark.parametrize(
    "code",
    [pynvml.NVML_ERROR_NOT_SUPPORTED, pynvml.NVML_ERROR_FUNCTION_NOT_FOUND, pynvml.NVML_ERROR_NO_PERMISSION],
)
def test_what_the_driver_cannot_tell_is_none_and_no_error(code: int) -> None:
    gpu = FakeGpu(errors=dict.fromkeys(HEALTHY, code))
    assert Nvml(FakeBinding(gpu)).read_health().gpus == (GpuHealth(0, uuid="GPU-0"),)


def test_clock_events_leave_idling_out() -> None:
    bits = pynvml.nvmlClocksEventReasonGpuIdle | pynvml.nvmlClocksEventReasonSwPowerCap
    assert health(CurrentClocksEventReasons=bits).clock_events == (ClockEvent.POWER_CAP,)


def test_clock_event_bits_are_the_librarys() -> None:
    assert {bit: event.name for bit, event in CLOCK_EVENT_BITS.items()} == {
        pynvml.nvmlClocksEventReasonApplicationsClocksSetting: "APPLICATION_CLOCKS",
        pynvml.nvmlClocksEventReasonSwPowerCap: "POWER_CAP",
        pynvml.nvmlClocksEventReasonHwSlowdown: "HW_SLOWDOWN",
        pynvml.nvmlClocksEventReasonSyncBoost: "SYNC_BOOST",
        pynvml.nvmlClocksEventReasonSwThermalSlowdown: "SW_THERMAL",
        pynvml.nvmlClocksEventReasonHwThermalSlowdown: "HW_THERMAL",
        pynvml.nvmlClocksEventReasonHwPowerBrakeSlowdown: "POWER_BRAKE",
        pynvml.nvmlClocksEventReasonDisplayClockSetting: "DISPLAY",
    }


def test_older_drivers_know_clock_events_by_their_older_name() -> None:
    gpu = FakeGpu(
        answers=healthy_but(CurrentClocksThrottleReasons=pynvml.nvmlClocksThrottleReasonHwSlowdown),
        errors={"nvmlDeviceGetCurrentClocksEventReasons": pynvml.NVML_ERROR_FUNCTION_NOT_FOUND},
    )
    assert Nvml(FakeBinding(gpu)).read_health().gpus[0].clock_events == (ClockEvent.HW_SLOWDOWN,)


def test_ecc_counters_are_not_mixed_up() -> None:
    counts = {
        (pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, pynvml.NVML_VOLATILE_ECC): 1,
        (pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, pynvml.NVML_AGGREGATE_ECC): 2,
        (pynvml.NVML_MEMORY_ERROR_TYPE_CORRECTED, pynvml.NVML_VOLATILE_ECC): 3,
        (pynvml.NVML_MEMORY_ERROR_TYPE_CORRECTED, pynvml.NVML_AGGREGATE_ECC): 4,
    }
    ecc = health(EccMode=[1, 0], TotalEccErrors=lambda kind, counter: counts[kind, counter]).ecc
    assert ecc == EccReading(True, False, 1, 2, 3, 4)


def test_instances_are_counted_where_there_are_some() -> None:
    def instance(slot: int) -> str:
        return "instance" if slot in (0, 3) else no_such_thing(pynvml.NVML_ERROR_NOT_FOUND)

    found = health(MigMode=[1, 1], MigDeviceHandleByIndex=instance)
    assert found.mig == MigReading(True, True, 2)
    assert found.error is None


def test_links_end_where_the_driver_knows_none() -> None:
    found = health(NvLinkState=lambda link: (1, 0, 1, 1)[link] if link < 4 else no_such_thing())
    assert (found.num_nvlinks, found.num_nvlinks_active, found.error) == (4, 3, None)


def test_processes_have_names_where_they_can_be_told() -> None:
    compute = SimpleNamespace(pid=7, usedGpuMemory=GIB)
    unknown = SimpleNamespace(pid=8, usedGpuMemory=None)
    answers = healthy_but(ComputeRunningProcesses=[compute, unknown], GraphicsRunningProcesses=[compute])
    binding = FakeBinding(FakeGpu(answers=answers))
    binding.process_names[7] = "/usr/bin/python3"
    found = Nvml(binding).read_health().gpus[0]
    assert found.processes == (GpuProcess(7, "/usr/bin/python3", GIB), GpuProcess(8, None, None))
    assert found.error is None


@pytest.mark.parametrize(
    ("brand", "is_data_center"),
    [
        (pynvml.NVML_BRAND_TESLA, True),
        (pynvml.NVML_BRAND_NVIDIA, True),
        (pynvml.NVML_BRAND_GEFORCE, False),
        (pynvml.NVML_BRAND_NVIDIA_RTX, False),
    ],
)
def test_brands(brand: int, is_data_center: bool) -> None:
    assert health(Brand=brand).is_data_center is is_data_center


def test_a_lost_gpu_says_so_and_hides_no_other() -> None:
    lost = FakeGpu("GPU-a", errors={"nvmlDeviceGetHandleByIndex": pynvml.NVML_ERROR_GPU_IS_LOST})
    first, second = Nvml(FakeBinding(lost, FakeGpu("GPU-b"))).read_health().gpus
    assert first == GpuHealth(0, error="GPU is lost")
    assert second.uuid == "GPU-b"


def test_without_a_driver_the_reason_is_given() -> None:
    inventory = Nvml(FakeBinding(init_error=pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)).read_health()
    assert inventory.gpus == ()
    assert "No NVIDIA driver library" in (inventory.reason or "")


def test_the_samplers_reading_asks_nothing_of_health() -> None:
    binding = FakeBinding(FakeGpu())
    Nvml(binding).read()
    assert len(binding.calls) == 15  # the start, three of the system and eleven of the device
