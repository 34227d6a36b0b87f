"""How NVML is asked: which of its errors mean "cannot tell" is decided here, once; and its units, turned into ours."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Asker:
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
        self.is_lost = False
        self.error: str | None = None

    def ask(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """The function's value, None where the driver cannot tell. Other NVML errors are kept in `error`."""
        return self._ask(self._cannot_tell, function, *arguments)

    def ask_beyond(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """As `ask`, for a link, an instance or a process that may not exist: then None, and no error."""
        nvml = self._nvml
        absent = {nvml.NVML_ERROR_INVALID_ARGUMENT, nvml.NVML_ERROR_NOT_FOUND}
        return self._ask(self._cannot_tell | absent, function, *arguments)

    def memory(self, handle: Any) -> Any:
        """NVML's memory structure. Drivers before 510 know only its first version, which counts reserved as used."""
        nvml = self._nvml
        memory = self.ask(nvml.nvmlDeviceGetMemoryInfo, handle, nvml.nvmlMemory_v2)
        return self.ask(nvml.nvmlDeviceGetMemoryInfo, handle) if memory is None else memory

    def _ask(self, silent: set[int], function: Callable[..., Any], *arguments: Any) -> Any:
        if self.is_lost:
            return None
        try:
            return function(*arguments)
        except self._nvml.NVMLError as error:
            if error.value not in silent:
                self.is_lost = error.value in self._lost
                self.error = str(error)
            return None


def ratio(percent: int | None) -> float | None:
    """Percent as a share of one."""
    return None if percent is None else percent / 100


def watts(milliwatts: int | None) -> float | None:
    """Milliwatts as watts."""
    return None if milliwatts is None else milliwatts / 1000


def hertz(megahertz: int | None) -> int | None:
    """Megahertz as hertz."""
    return None if megahertz is None else megahertz * 1_000_000


def flag(state: int | None) -> bool | None:
    """NVML's enabled and disabled."""
    return None if state is None else bool(state)
