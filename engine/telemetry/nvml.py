"""The one door to NVML, NVIDIA's management library.

Above this module there are frozen readings. A value that the driver cannot tell is None, never 0, and which
errors count as "cannot tell" is decided once, in `_Device.ask`.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pynvml

from engine.clock import Clock, SystemClock

RETRY_AFTER_S = 30.0


@dataclass(frozen=True)
class GpuReading:
    """One GPU at one moment. `error` says what kept some of its values from being read, if anything did."""

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


@dataclass(frozen=True)
class GpuInventory:
    """Every GPU the driver lists; `reason` is one sentence on why there are none, else None."""

    gpus: tuple[GpuReading, ...] = ()
    driver_version: str | None = None
    cuda_driver_version: str | None = None
    reason: str | None = None


class Nvml:
    """Reads GPUs through an NVML binding with pynvml's functions, error class and constants.

    The library is started once, at the first reading. A start that fails is tried again after 30 s, so that a
    driver loaded later is found. Any thread may read; NVML itself is thread-safe.
    """

    def __init__(self, binding: Any = pynvml, clock: Clock | None = None) -> None:
        self._binding = binding
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()
        self._is_started = False
        self._failure: tuple[float, str] | None = None

    def read(self) -> GpuInventory:
        """Read every GPU now. No NVML error escapes: without a driver the inventory is empty and says why."""
        reason = self._start()
        if reason is not None:
            return GpuInventory(reason=reason)
        nvml = self._binding
        driver = _Device(nvml)
        driver_version = driver.ask(nvml.nvmlSystemGetDriverVersion)
        cuda_version = driver.ask(nvml.nvmlSystemGetCudaDriverVersion_v2)
        num_gpus = driver.ask(nvml.nvmlDeviceGetCount)
        gpus = tuple(_read_gpu(nvml, index) for index in range(num_gpus or 0))
        if num_gpus is None:
            reason = f"The NVIDIA driver cannot list its GPUs: {driver.error or 'not supported'}."
        elif not gpus:
            reason = "The NVIDIA driver is loaded but lists no GPU."
        return GpuInventory(gpus, driver_version, _dotted_cuda_version(cuda_version), reason)

    def close(self) -> None:
        """Shut NVML down if it was started. A later reading starts it again."""
        with self._lock:
            if self._is_started:
                self._is_started = False
                # A driver that is gone refuses even this, and then nothing is left to free.
                with contextlib.suppress(self._binding.NVMLError):
                    self._binding.nvmlShutdown()

    def _start(self) -> str | None:
        """Start NVML unless it runs; the reason when it cannot be started."""
        with self._lock:
            if self._is_started:
                return None
            if self._failure is not None and self._clock.monotonic() - self._failure[0] < RETRY_AFTER_S:
                return self._failure[1]
            try:
                self._binding.nvmlInit()
            except self._binding.NVMLError as error:
                self._failure = (self._clock.monotonic(), _explain_start(self._binding, error))
                return self._failure[1]
            self._is_started, self._failure = True, None
            return None


class _Device:
    """Asks NVML about one device and remembers what went wrong; a lost device is not asked again."""

    def __init__(self, nvml: Any) -> None:
        self._nvml = nvml
        self._cannot_tell = {
            nvml.NVML_ERROR_NOT_SUPPORTED,
            nvml.NVML_ERROR_FUNCTION_NOT_FOUND,
            nvml.NVML_ERROR_NO_PERMISSION,
            nvml.NVML_ERROR_NO_DATA,
            nvml.NVML_ERROR_ARGUMENT_VERSION_MISMATCH,
        }
        self._lost = {nvml.NVML_ERROR_GPU_IS_LOST, nvml.NVML_ERROR_RESET_REQUIRED}
        self._is_lost = False
        self.error: str | None = None

    def ask(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """The function's value, None where the driver cannot tell. Other NVML errors are kept in `error`."""
        if self._is_lost:
            return None
        try:
            return function(*arguments)
        except self._nvml.NVMLError as error:
            if error.value not in self._cannot_tell:
                self._is_lost = error.value in self._lost
                self.error = str(error)
            return None


def _read_gpu(nvml: Any, index: int) -> GpuReading:
    device = _Device(nvml)
    handle = device.ask(nvml.nvmlDeviceGetHandleByIndex, index)
    if handle is None:
        return GpuReading(index, error=device.error or "This user may not open the GPU.")
    memory = device.ask(nvml.nvmlDeviceGetMemoryInfo, handle, nvml.nvmlMemory_v2)
    if memory is None:  # drivers before 510 know only the first version, which counts reserved memory as used
        memory = device.ask(nvml.nvmlDeviceGetMemoryInfo, handle)
    busy = device.ask(nvml.nvmlDeviceGetUtilizationRates, handle)
    return GpuReading(
        index=index,
        uuid=device.ask(nvml.nvmlDeviceGetUUID, handle),
        name=device.ask(nvml.nvmlDeviceGetName, handle),
        compute_capability=device.ask(nvml.nvmlDeviceGetCudaComputeCapability, handle),
        memory_used_bytes=memory and memory.used,
        memory_total_bytes=memory and memory.total,
        utilization_ratio=_ratio(busy and busy.gpu),
        memory_utilization_ratio=_ratio(busy and busy.memory),
        power_w=_watts(device.ask(nvml.nvmlDeviceGetPowerUsage, handle)),
        power_limit_w=_watts(device.ask(nvml.nvmlDeviceGetEnforcedPowerLimit, handle)),
        temperature_c=device.ask(nvml.nvmlDeviceGetTemperature, handle, nvml.NVML_TEMPERATURE_GPU),
        fan_ratio=_ratio(device.ask(nvml.nvmlDeviceGetFanSpeed, handle)),
        sm_clock_hz=_hertz(device.ask(nvml.nvmlDeviceGetClockInfo, handle, nvml.NVML_CLOCK_SM)),
        sm_clock_max_hz=_hertz(device.ask(nvml.nvmlDeviceGetMaxClockInfo, handle, nvml.NVML_CLOCK_SM)),
        memory_clock_hz=_hertz(device.ask(nvml.nvmlDeviceGetClockInfo, handle, nvml.NVML_CLOCK_MEM)),
        error=device.error,
    )


def _ratio(percent: int | None) -> float | None:
    return None if percent is None else percent / 100


def _watts(milliwatts: int | None) -> float | None:
    return None if milliwatts is None else milliwatts / 1000


def _hertz(megahertz: int | None) -> int | None:
    return None if megahertz is None else megahertz * 1_000_000


def _dotted_cuda_version(number: int | None) -> str | None:
    """NVML's 12080 is CUDA 12.8."""
    return None if number is None else f"{number // 1000}.{number % 1000 // 10}"


def _explain_start(nvml: Any, error: Any) -> str:
    known = {
        nvml.NVML_ERROR_LIBRARY_NOT_FOUND: "No NVIDIA driver library (libnvidia-ml) is installed.",
        nvml.NVML_ERROR_DRIVER_NOT_LOADED: (
            "The NVIDIA driver library is installed, but its kernel module is not loaded."
        ),
        nvml.NVML_ERROR_NO_PERMISSION: ("This user has no permission to talk to the NVIDIA driver (/dev/nvidiactl)."),
        nvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH: (
            "The NVIDIA driver library and its kernel module differ in version: updated without a restart."
        ),
    }
    return known.get(error.value, f"The NVIDIA management library cannot start: {error}.")
