"""An NVML binding, played: scripted GPUs behind pynvml's function names, its errors and its constants."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, NoReturn

import pynvml

GIB = 1 << 30


def no_such_thing(code: int = pynvml.NVML_ERROR_INVALID_ARGUMENT) -> NoReturn:
    """What NVML answers about a link, an instance or a process that does not exist."""
    raise pynvml.NVMLError(code)


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
    "nvmlDeviceGetMinorNumber": 0,
    "nvmlDeviceGetBrand": pynvml.NVML_BRAND_NVIDIA,
    "nvmlDeviceGetEccMode": [1, 1],
    "nvmlDeviceGetTotalEccErrors": 0,
    "nvmlDeviceGetRemappedRows": (0, 0, 0, 0),
    "nvmlDeviceGetRetiredPagesPendingStatus": 0,
    "nvmlDeviceGetCurrentClocksEventReasons": pynvml.nvmlClocksEventReasonGpuIdle,
    "nvmlDeviceGetCurrentClocksThrottleReasons": pynvml.nvmlClocksThrottleReasonGpuIdle,
    "nvmlDeviceGetCurrPcieLinkGeneration": 5,
    "nvmlDeviceGetMaxPcieLinkGeneration": 5,
    "nvmlDeviceGetCurrPcieLinkWidth": 16,
    "nvmlDeviceGetMaxPcieLinkWidth": 16,
    "nvmlDeviceGetPersistenceMode": 1,
    "nvmlDeviceGetMigMode": [0, 0],
    "nvmlDeviceGetMaxMigDeviceCount": 7,
    "nvmlDeviceGetMigDeviceHandleByIndex": "instance",
    "nvmlDeviceGetPowerManagementDefaultLimit": 700_000,
    "nvmlDeviceGetComputeRunningProcesses": [],
    "nvmlDeviceGetGraphicsRunningProcesses": [],
    "nvmlDeviceGetNvLinkState": lambda link: 1 if link < 18 else no_such_thing(),
    "nvmlDeviceGetTopologyCommonAncestor": pynvml.NVML_TOPOLOGY_NODE,
    "nvmlDeviceGetP2PStatus": pynvml.NVML_P2P_STATUS_OK,
}


@dataclass
class FakeGpu:
    """One GPU: what it answers by function name, and the NVML error codes that it answers instead.

    An answer that is a function is called with what NVML was asked beside the device.
    """

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
        self.process_names: dict[int, str] = {}
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

    def nvmlSystemGetProcessName(self, pid: int) -> str:
        return self.process_names[pid] if pid in self.process_names else no_such_thing(pynvml.NVML_ERROR_NOT_FOUND)

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
            answer = gpu.answers[name]
            return answer(*arguments) if callable(answer) else answer

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


def healthy_but(**changes: Any) -> dict[str, Any]:
    """A healthy GPU's answers with some others, by NVML's function name without `nvmlDeviceGet`."""
    return HEALTHY | {f"nvmlDeviceGet{name}": value for name, value in changes.items()}
