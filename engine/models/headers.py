"""What tensors a model's files hold, from their headers alone: no weights are read and torch is not imported."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.errors import WeightsError
from engine.weights.gguf_header import GgufHeader
from engine.weights.safetensors_header import DTYPE_BITS, check_safetensors

# What loading casts to the model's dtype; everything else stays as it is in the file.
_CAST = frozenset({"F64", "F32", "F16", "BF16"})


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One tensor of a file. `stored_bytes` is what it takes there; `is_cast` says that loading brings it to the
    model's dtype, as it does with plain floating point and with what GGUF holds in blocks."""

    name: str
    shape: tuple[int, ...]
    stored_bytes: int
    is_cast: bool

    @property
    def num_elements(self) -> int:
        return math.prod(self.shape)


def tensor_info(name: str, dtype: str, shape: Iterable[int]) -> TensorInfo:
    """A tensor as a safetensors header describes it; `dtype` is one of `DTYPE_BITS`."""
    sizes = tuple(shape)
    return TensorInfo(name, sizes, math.prod(sizes) * DTYPE_BITS[dtype] // 8, dtype in _CAST)


def read_tensors(folder: Path) -> tuple[TensorInfo, ...]:
    """The tensors of all safetensors files in `folder`, in the order of files and headers.

    Raises:
        WeightsError: there are no such files, one is damaged, or two hold the same tensor.
    """
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise WeightsError(f"{folder} holds no .safetensors file, so its memory cannot be planned: fetch the weights")
    return join_tensors((str(file), check_safetensors(file)) for file in files)


def join_tensors(headers: Iterable[tuple[str, Mapping[str, Any]]]) -> tuple[TensorInfo, ...]:
    """The tensors of checked safetensors headers, each with the name of its file, in their order.

    Raises:
        WeightsError: two hold the same tensor.
    """
    tensors: dict[str, TensorInfo] = {}
    for file, header in headers:
        for tensor in tensors_of_header(header):
            if tensor.name in tensors:
                raise WeightsError(f"{file} repeats the tensor {tensor.name!r:.99} of another file: remove one of them")
            tensors[tensor.name] = tensor
    return tuple(tensors.values())


def tensors_of_header(header: Mapping[str, Any]) -> list[TensorInfo]:
    """The tensors of one checked safetensors header."""
    return [
        tensor_info(name, entry["dtype"], entry["shape"]) for name, entry in header.items() if name != "__metadata__"
    ]


def tensors_of_gguf(header: GgufHeader) -> tuple[TensorInfo, ...]:
    """The tensors of a GGUF header, their shapes in torch's order: rows first."""
    return tuple(
        TensorInfo(tensor.name, tuple(reversed(tensor.shape)), tensor.num_bytes, is_cast=True)
        for tensor in header.tensors
    )
