"""What goes wrong while a model loads, in one sentence with the remedy, and what it took given back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError

from engine.errors import ConsoleError, WeightsError
from engine.models.memory import free_host_bytes
from engine.models.release import release_memory

_MEMORY_REMEDY = "unload another model, choose a smaller dtype or a quantization, or see the plan of this model"


def first_line(error: BaseException) -> str:
    """The error's first line, or its class's name."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


@contextmanager
def one_sentence(folder: Path) -> Iterator[None]:
    """Turn what loading `folder` raises into a WeightsError; on any failure memory goes back to the device."""
    try:
        yield
    except ConsoleError:
        release_memory()
        raise
    except Exception as error:  # parsers of damaged files raise whatever they stumble over
        sentence = describe(folder, error)
        error.__traceback__ = None  # its frames hold the tensors that were loaded
        release_memory()
        raise WeightsError(sentence) from error


def describe(folder: Path, error: Exception) -> str:
    """The sentence for a failure to load `folder`."""
    line = first_line(error)
    if isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in line:
        return f"{folder} does not fit into the memory that is free ({line}): {_MEMORY_REMEDY}"
    if isinstance(error, SafetensorError):
        return f"{folder} cannot be loaded: a .safetensors file is damaged ({line}); fetch it again"
    if isinstance(error, ValueError) and ("model type" in line or "model_type" in line):
        return f"{folder} cannot be loaded: its architecture is not known to this version of transformers ({line})"
    return f"{folder} cannot be loaded: {line}"


def check_room(folder: Path, need_bytes: int, device: torch.device) -> None:
    """Raise WeightsError where the weights alone are more than what is free. On a host this comes before anything is
    taken, because there the kernel would end the process instead of refusing."""
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else free_host_bytes()
    if need_bytes > free:
        raise WeightsError(
            f"{folder} needs {need_bytes / 2**30:.1f} GiB for weights and {free / 2**30:.1f} GiB are free on "
            f"{device.type}: {_MEMORY_REMEDY}"
        )
