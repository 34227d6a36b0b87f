"""Attention over packed sequences, each with a key/value cache of its own.

One forward pass carries the tokens of many requests one after another, without padding: the linear layers see one
matrix, and only attention needs to know where a request begins. transformers models take this function by name
through `AttentionInterface` and stay unchanged.

A request's cache is one tensor that grows with it (`SequenceCache`): contiguous, so that attention reads it in
place, which on a CPU is worth more than the packing density of fixed-size blocks. How much all requests together
may hold is decided before they start (scheduling/admission.py).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch.nn import functional
from transformers import AttentionInterface

NAME = "console_packed"
_GROWTH = 1.5
_ROUND_TO = 64


@dataclass(frozen=True, slots=True)
class CacheShape:
    """What one token's keys and values take in one model."""

    num_layers: int
    num_kv_heads: int
    head_dim: int
    dtype: torch.dtype
    device: torch.device

    @property
    def bytes_per_token(self) -> int:
        return 2 * self.num_layers * self.num_kv_heads * self.head_dim * self.dtype.itemsize


class SequenceCache:
    """Keys and values of one request, shape (layers, 2, kv heads, capacity, head dim)."""

    def __init__(self, shape: CacheShape, capacity: int) -> None:
        self.length = 0
        self._shape = shape
        self._data = self._allocate(capacity)

    @property
    def capacity(self) -> int:
        """Tokens that fit before the cache must grow."""
        return self._data.shape[3]

    def _allocate(self, capacity: int) -> torch.Tensor:
        shape = self._shape
        rounded = -(-capacity // _ROUND_TO) * _ROUND_TO
        size = (shape.num_layers, 2, shape.num_kv_heads, rounded, shape.head_dim)
        return torch.empty(size, dtype=shape.dtype, device=shape.device)

    def reserve(self, length: int, limit: int) -> None:
        """Make room for `length` tokens in all, keeping what is there, and for no more than `limit` ahead of need."""
        if length <= self.capacity:
            return
        grown = self._allocate(max(length, min(limit, int(self.capacity * _GROWTH))))
        grown[:, :, :, : self.length] = self._data[:, :, :, : self.length]
        self._data = grown

    def write(self, layer: int, start: int, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Put keys and values, each (kv heads, n, head dim), at `start`."""
        stop = start + keys.shape[1]
        self._data[layer, 0, :, start:stop] = keys
        self._data[layer, 1, :, start:stop] = values

    def read(self, layer: int, start: int, stop: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Views of keys and values, each (1, kv heads, stop - start, head dim)."""
        return self._data[layer, 0, :, start:stop].unsqueeze(0), self._data[layer, 1, :, start:stop].unsqueeze(0)


@dataclass(slots=True)
class Span:
    """Rows `begin:end` of the packed batch belong to one request, whose cache held `past` tokens before them."""

    cache: SequenceCache
    begin: int
    end: int
    past: int


@dataclass(slots=True)
class PackedBatch:
    """The spans of one forward pass, handed to every layer's attention."""

    spans: list[Span]
    _masks: dict[tuple[int, int, int | None], torch.Tensor] = field(default_factory=dict)

    def mask(self, num_queries: int, num_keys: int, window: int | None, device: torch.device) -> torch.Tensor:
        """True where query i, at position num_keys - num_queries + i, may look; made once for all layers."""
        key = (num_queries, num_keys, window)
        if key not in self._masks:
            offset = num_keys - num_queries
            mask = torch.ones(num_queries, num_keys, dtype=torch.bool, device=device).tril(offset)
            if window is not None:
                mask = mask.triu(offset - window + 1)
            self._masks[key] = mask
        return self._masks[key]


def attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    packed_batch: PackedBatch,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: torch.Tensor | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """The function transformers calls in each layer.

    Args:
        query: (1, heads, tokens, head dim) of the packed batch; key and value likewise with kv heads.
        attention_mask: always None, because no mask function is registered under this name.

    Returns:
        (1, tokens, heads, head dim), and no weights.
    """
    if softcap is not None or s_aux is not None:
        raise NotImplementedError("attention with a soft cap or sinks is not supported")
    layer: int = module.layer_idx  # type: ignore[assignment]
    outputs = [
        _attend_span(layer, span, packed_batch, query, key, value, scaling, sliding_window)
        for span in packed_batch.spans
    ]
    packed = outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=2)
    return packed.transpose(1, 2), None


def _attend_span(
    layer: int,
    span: Span,
    batch: PackedBatch,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    scaling: float | None,
    window: int | None,
) -> torch.Tensor:
    begin, end, past = span.begin, span.end, span.past
    num_queries, num_keys = end - begin, past + end - begin
    span.cache.write(layer, past, key[0, :, begin:end], value[0, :, begin:end])
    first = max(0, num_keys - window) if window is not None and num_queries == 1 else 0
    keys, values = span.cache.read(layer, first, num_keys)
    whole_prompt = past == 0 and (window is None or num_keys <= window)
    mask = None
    if num_queries > 1 and not whole_prompt:
        mask = batch.mask(num_queries, num_keys, window, query.device)
    return functional.scaled_dot_product_attention(
        query[:, :, begin:end],
        keys,
        values,
        attn_mask=mask,
        is_causal=num_queries > 1 and mask is None,
        scale=scaling,
        enable_gqa=query.shape[1] != keys.shape[1],
    )


AttentionInterface.register(NAME, attend)
