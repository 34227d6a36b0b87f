"""An NVML binding, played: scripted GPUs behind pynvml's function names, its errors and its constants."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pynvml

GIB = 1 << 30

HEALTHY: dict[str, Any] = {
    "nvmlDeviceGetName": "NVIDIA H200",
    "nvmlDeviceGetCudaComputeCapability": (9, 0),
    "nvmlDeviceGetMemoryInfo": SimpleNamespace(used=20 * GIB, total=140 * GIB),
    "nvmlDeviceGetUtilizationRates": SimpleNamespace(gpu=55, memory=7),
    "nvmlDeviceGetPowerUsage": 412_500,
    "nvmlDeviceGetEnforcedPowerLimit": 700_000,
    "nvmlDeviceGetTemperature": 61,
    "nvmlDeviceGetFanSpeed": 30,
    "nvmlDeviceGetClockInfo": 1_980,
    "nvmlDeviceGetMaxClockInfo": 1_980,
}


@dataclass
class FakeGpu:
    """One GPU: what it answers by function name, and the NVML error codes that it answers instead."""

    uuid: str = "GPU-0"
    answers: dict[str, Any] = field(default_factory=lambda: dict(HEALTHY))
    errors: dict[str, int] = field(default_factory=dict)


class FakeBinding:
    """Stands in for the pynvml module. `init_error` is raised by every start while it is set."""

    NVMLError = pynvml.NVMLError

    def __init__(self, *gpus: FakeGpu, init_error: int | None = None) -> None:
        self.gpus = gpus
        self.init_error = init_error
        self.system_errors: dict[str, int] = {}
        self.calls: list[str] = []

    def nvmlInit(self) -> None:
        self.calls.append("nvmlInit")
        if self.init_error is not None:
            raise pynvml.NVMLError(self.init_error)

    def nvmlShutdown(self) -> None:
        self._answer("nvmlShutdown", None)

    def nvmlSystemGetDriverVersion(self) -> str:
        return str(self._answer("nvmlSystemGetDriverVersion", "580.95.05"))

    def nvmlSystemGetCudaDriverVersion_v2(self) -> int:
        return int(self._answer("nvmlSystemGetCudaDriverVersion_v2", 13_000))

    def nvmlDeviceGetCount(self) -> int:
        return int(self._answer("nvmlDeviceGetCount", len(self.gpus)))

    def nvmlDeviceGetHandleByIndex(self, index: int) -> FakeGpu:
        gpu = self.gpus[index]
        self._raise_if_scripted(gpu.errors, "nvmlDeviceGetHandleByIndex")
        return gpu

    def nvmlDeviceGetUUID(self, gpu: FakeGpu) -> str:
        return gpu.uuid

    def __getattr__(self, name: str) -> Any:
        """Constants come from the real binding; a device function answers from the GPU's script."""
        if not name.startswith("nvmlDevice"):
            return getattr(pynvml, name)
        return self._device_function(name)

    def _device_function(self, name: str) -> Callable[..., Any]:
        if not hasattr(pynvml, name):
            raise AttributeError(f"pynvml has no {name}")

        def call(gpu: FakeGpu, *arguments: Any) -> Any:
            self.calls.append(name)
            self._raise_if_scripted(gpu.errors, name)
            return gpu.answers[name]

        return call

    def _answer(self, name: str, value: Any) -> Any:
        self.calls.append(name)
        self._raise_if_scripted(self.system_errors, name)
        return value

    @staticmethod
    def _raise_if_scripted(errors: dict[str, int], name: str) -> None:
        if name in errors:
            raise pynvml.NVMLError(errors[name])


@dataclass
class ManualClock:
    """A clock that moves when the test says so."""

    seconds: float = 1_000.0

    def monotonic(self) -> float:
        return self.seconds

    def wall(self) -> float:
        return self.seconds
