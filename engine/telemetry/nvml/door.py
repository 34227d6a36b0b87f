"""The one door to NVML, NVIDIA's management library.

Above this package there are frozen readings. A value that the driver cannot tell is None, never 0.
"""

from __future__ import annotations

import contextlib
import threading
from typing import Any

import pynvml

from engine.clock import Clock, SystemClock
from engine.telemetry.nvml.asking import Asker
from engine.telemetry.nvml.health import HealthInventory, read_gpu_health
from engine.telemetry.nvml.reading import GpuInventory, read_gpu
from engine.telemetry.nvml.topology import Topology, read_pairs

RETRY_AFTER_S = 30.0


class Nvml:
    """Reads GPUs through an NVML binding with pynvml's functions, error class and constants.

    The library is started once, at the first reading. A start that fails is tried again after 30 s, so that a
    driver loaded later is found. Any thread may read; NVML itself is thread-safe. No NVML error escapes.
    """

    def __init__(self, binding: Any = pynvml, clock: Clock | None = None) -> None:
        self._binding = binding
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()
        self._is_started = False
        self._failure: tuple[float, str] | None = None

    def read(self) -> GpuInventory:
        """What every GPU is doing now: cheap, for the sampler. Without a driver it is empty and says why."""
        num_gpus, reason = self._count()
        if num_gpus is None:
            return GpuInventory(reason=reason)
        nvml = self._binding
        driver = Asker(nvml)
        driver_version = driver.ask(nvml.nvmlSystemGetDriverVersion)
        cuda_version = driver.ask(nvml.nvmlSystemGetCudaDriverVersion_v2)
        gpus = tuple(read_gpu(nvml, index) for index in range(num_gpus))
        return GpuInventory(gpus, driver_version, _dotted_cuda_version(cuda_version), reason)

    def read_health(self) -> HealthInventory:
        """The health of every GPU: some dozens of calls each, so on request only."""
        num_gpus, reason = self._count()
        return HealthInventory(tuple(read_gpu_health(self._binding, index) for index in range(num_gpus or 0)), reason)

    def read_topology(self) -> Topology:
        """How each GPU reaches each other one."""
        num_gpus, reason = self._count()
        return Topology(num_gpus or 0, read_pairs(self._binding, num_gpus or 0), reason)

    def close(self) -> None:
        """Shut NVML down if it was started. A later reading starts it again."""
        with self._lock:
            if self._is_started:
                self._is_started = False
                # A driver that is gone refuses even this, and then nothing is left to free.
                with contextlib.suppress(self._binding.NVMLError):
                    self._binding.nvmlShutdown()

    def _count(self) -> tuple[int | None, str | None]:
        """How many GPUs the driver lists, None where it does not run; and the reason unless there are some."""
        reason = self._start()
        if reason is not None:
            return None, reason
        asker = Asker(self._binding)
        num_gpus = asker.ask(self._binding.nvmlDeviceGetCount)
        if num_gpus is None:
            return 0, f"The NVIDIA driver cannot list its GPUs: {asker.error or 'not supported'}."
        return num_gpus, None if num_gpus else "The NVIDIA driver is loaded but lists no GPU."

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
