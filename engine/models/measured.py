"""What a loaded model really holds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch

from engine.models.bitsandbytes import scale_bytes
from engine.models.comparison import Measured
from engine.models.loader import LoadedModel
from engine.models.packing import PackedLinear
from engine.models.process_memory import mapped_bytes, read_anonymous_bytes
from engine.models.quantized_linear import QuantizedLinear
from engine.models.release import release_memory


def mark_memory(device: str) -> int:
    """Bytes that this process holds on `device` (`cpu`, `cuda:0`) now; what was freed is given back first."""
    release_memory()
    if device == "cpu":
        return read_anonymous_bytes()
    return torch.cuda.memory_allocated(torch.device(device))


def measure_loaded(loaded: LoadedModel, capacities: Iterable[int] = (), mark_bytes: int | None = None) -> Measured:
    """Measure `loaded`, its caches of so many tokens each, and the growth since `mark_bytes`, which `mark_memory`
    gave before loading. On a CPU pages count from their first use: measure after the first answers."""
    device = str(loaded.cache_shape.device)
    cache_tokens = sum(capacities)
    blocks = list(_storages(loaded.model))
    grown = None if mark_bytes is None else mark_memory(device) - mark_bytes + mapped_bytes(blocks)
    return Measured(
        device=device,
        weights_bytes=sum(size for _, size in blocks),
        cache_tokens=cache_tokens,
        cache_bytes=cache_tokens * loaded.cache_shape.bytes_per_token,
        process_bytes=grown,
    )


def _storages(model: torch.nn.Module) -> Iterator[tuple[int, int]]:
    """Address and bytes of each distinct storage below `model`; 0 where a kernel's own layout shows no address."""
    seen: set[int] = set()
    yield from ((0, module.weight_bytes) for module in model.modules() if isinstance(module, QuantizedLinear))
    yield from ((0, size) for size in map(scale_bytes, model.modules()) if size)
    for tensor in _plain_tensors(model):
        if tensor.is_mkldnn:
            yield 0, tensor.numel() * tensor.element_size()
            continue
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in seen:
            seen.add(storage.data_ptr())
            yield storage.data_ptr(), storage.nbytes()


def _plain_tensors(model: torch.nn.Module) -> Iterator[torch.Tensor]:
    """Every tensor that is not made of others, but those of quantized layers; a packed product once, though several
    layers share it."""
    products: dict[int, Any] = {}
    for module in model.modules():
        if isinstance(module, QuantizedLinear):
            continue
        attributes = (*module._parameters.values(), *module._buffers.values(), *vars(module).values())
        for value in attributes:
            if isinstance(value, torch.Tensor):
                yield from _parts(value)
        if isinstance(module, PackedLinear):
            products[id(module._product)] = module._product
    for product in products.values():
        yield from (part for part in (product._packed, product._bias) if part is not None)


def _parts(tensor: torch.Tensor) -> Iterator[torch.Tensor]:
    """The tensors inside a quantized one, which shows an empty outside."""
    inner = tensor.data if isinstance(tensor, torch.nn.Parameter) else tensor
    if type(inner) is torch.Tensor:
        yield inner
        return
    names, _context = inner.__tensor_flatten__()  # type: ignore[attr-defined]
    for name in names:
        yield from _parts(getattr(inner, name))
