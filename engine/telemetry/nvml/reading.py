"""What one look at the GPUs gives: frozen readings with units in their names, None for what the driver cannot tell."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from engine.telemetry.nvml.asking import Asker, hertz, ratio, watts


@dataclass(frozen=True)
class GpuReading:
    """One GPU at one moment. `error` says what kept some of its values from being read, if anything did; `is_usable` is
    False when that was the card itself: it is lost, needs a reset, or cannot be opened."""

    index: int
    uuid: str | None = None
    name: str | None = None
    compute_capability: tuple[int, int] | None = None
    memory_used_bytes: int | None = None
    memory_total_bytes: int | None = None
    utilization_ratio: float | None = None
    memory_utilization_ratio: float | None = None
    power_w: float | None = None
    power_limit_w: float | None = None
    temperature_c: int | None = None
    fan_ratio: float | None = None
    sm_clock_hz: int | None = None
    sm_clock_max_hz: int | None = None
    memory_clock_hz: int | None = None
    error: str | None = None
    is_usable: bool = True


@dataclass(frozen=True)
class GpuInventory:
    """Every GPU the driver lists; `reason` is one sentence on why there are none, else None."""

    gpus: tuple[GpuReading, ...] = ()
    driver_version: str | None = None
    cuda_driver_version: str | None = None
    reason: str | None = None


def read_gpu(nvml: Any, index: int) -> GpuReading:
    """Ask about one GPU what the sampler shows; about fifteen driver calls."""
    asker = Asker(nvml)
    handle = asker.ask(nvml.nvmlDeviceGetHandleByIndex, index)
    if handle is None:
        return GpuReading(index, error=asker.error or "This user may not open the GPU.", is_usable=False)
    memory = asker.memory(handle)
    busy = asker.ask(nvml.nvmlDeviceGetUtilizationRates, handle)
    reading = GpuReading(
        index=index,
        uuid=asker.ask(nvml.nvmlDeviceGetUUID, handle),
        name=asker.ask(nvml.nvmlDeviceGetName, handle),
        compute_capability=asker.ask(nvml.nvmlDeviceGetCudaComputeCapability, handle),
        memory_used_bytes=memory and memory.used,
        memory_total_bytes=memory and memory.total,
        utilization_ratio=ratio(busy and busy.gpu),
        memory_utilization_ratio=ratio(busy and busy.memory),
        power_w=watts(asker.ask(nvml.nvmlDeviceGetPowerUsage, handle)),
        power_limit_w=watts(asker.ask(nvml.nvmlDeviceGetEnforcedPowerLimit, handle)),
        temperature_c=asker.ask(nvml.nvmlDeviceGetTemperature, handle, nvml.NVML_TEMPERATURE_GPU),
        fan_ratio=ratio(asker.ask(nvml.nvmlDeviceGetFanSpeed, handle)),
        sm_clock_hz=hertz(asker.ask(nvml.nvmlDeviceGetClockInfo, handle, nvml.NVML_CLOCK_SM)),
        sm_clock_max_hz=hertz(asker.ask(nvml.nvmlDeviceGetMaxClockInfo, handle, nvml.NVML_CLOCK_SM)),
        memory_clock_hz=hertz(asker.ask(nvml.nvmlDeviceGetClockInfo, handle, nvml.NVML_CLOCK_MEM)),
    )
    return replace(reading, error=asker.error, is_usable=not asker.is_lost)
