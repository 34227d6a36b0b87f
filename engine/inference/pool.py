"""Keys and values of all requests of one model in one tensor a layer, so that one kernel reads them all.

FlashAttention takes the rows of many requests at once, each with the place where its keys begin and how many there are
(`cu_seqlens_k` and `seqused_k` of flash-attn's varlen functions). So a request has a contiguous region of the pool, as
long as prompt and longest answer; where no hole is wide enough, regions are moved together, which costs a copy at
thousands of gigabytes a second. The pool grows by doubling, up to what admission lets in.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import takewhile

import torch

from engine.inference.attention import Cache, CacheShape, Kernel, KeysValues, Span
from engine.inference.regions import Region, Regions
from engine.inference.upload import upload

# The rows that fill up a batch of fixed size (decode_graphs.py) read and write here.
_SCRATCH_TOKENS = 1
_FIRST_TOKENS = 8_192


class PooledCache:
    """Keys and values of one request: a region of the pool, which has it back once nobody holds this any more."""

    def __init__(self, pool: KvPool, region: Region) -> None:
        self.length = 0
        self._pool = pool
        self._region = region
        weakref.finalize(self, pool.regions.give_back, region)

    @property
    def start(self) -> int:
        """Where in the pool it begins now."""
        return self._region.start

    @property
    def capacity(self) -> int:
        """Tokens that fit; it does not grow."""
        return self._region.size

    def reserve(self, length: int, _limit: int) -> None:
        """There is room for all that was asked for; ValueError for more."""
        if length > self.capacity:
            raise ValueError(f"{length:,} tokens do not fit into a region of {self.capacity:,}")

    def copy(self, start: int, stop: int) -> KeysValues:
        """A copy of the tokens `start:stop`."""
        part = torch.stack([layer[:, self.start + start : self.start + stop] for layer in self._pool.layers])
        return part[:, 0], part[:, 1]

    def put(self, start: int, copied: KeysValues) -> None:
        """Put what `copy` gave at `start`, for which there is room, and hold what is before its end."""
        self.length = start + copied[0].shape[1]
        for layer, keys, values in zip(self._pool.layers, *copied, strict=True):
            layer[0, self.start + start : self.start + self.length] = keys
            layer[1, self.start + start : self.start + self.length] = values

    def batch(self, spans: Sequence[Span], image_rows: list[int], added: torch.Tensor | None) -> PooledBatch:
        """See `attention.Cache`."""
        return self._pool.batch(spans, image_rows, added)


class KvPool:
    """The caches of one model.

    Attributes:
        layers: of each layer keys and values, shape (2, tokens, kv heads, head dim).
        version: counts how often `layers` became other tensors.
    """

    def __init__(self, shape: CacheShape, max_tokens: int, first_tokens: int = _FIRST_TOKENS) -> None:
        self._shape = shape
        self._max_tokens = max_tokens + _SCRATCH_TOKENS
        size = min(self._max_tokens, first_tokens + _SCRATCH_TOKENS)
        self.layers = [self._allocate(size) for _ in range(shape.num_layers)]
        self.version = 0
        self.regions = Regions(size)
        self.regions.take(_SCRATCH_TOKENS)

    def _allocate(self, num_tokens: int) -> torch.Tensor:
        shape = self._shape
        size = (2, num_tokens, shape.num_kv_heads, shape.head_dim)
        return torch.zeros(size, dtype=shape.dtype, device=shape.device)

    def open(self, num_tokens: int) -> PooledCache:
        """A cache with room for `num_tokens` tokens.

        Raises:
            MemoryError: they are more than the pool may hold beside the others.
            torch.OutOfMemoryError: the device has no room for a larger pool.
        """
        region = self.regions.take(num_tokens)
        if region is None:
            self._make_room(num_tokens)
            region = self.regions.take(num_tokens)
        if region is None:
            raise MemoryError(f"{num_tokens:,} tokens of cache are needed, {self.regions.num_free:,} are free")
        return PooledCache(self, region)

    def _make_room(self, num_tokens: int) -> None:
        if self.regions.num_free < num_tokens and self.regions.size < self._max_tokens:
            self._grow(self.regions.size + num_tokens - self.regions.num_free)
        self._compact()

    def _grow(self, num_tokens: int) -> None:
        """One layer after the other, so that no more than one of them is there twice. Where the device has no room for
        one, those before it stay larger than they need to be."""
        self.version += 1
        size = min(self._max_tokens, max(num_tokens, 2 * self.regions.size))
        for index, old in enumerate(self.layers):
            if old.shape[1] >= size:
                continue
            grown = self._allocate(size)
            grown[:, : old.shape[1]] = old
            self.layers[index] = grown
        self.regions.size = size

    def _compact(self) -> None:
        for move in self.regions.compact():
            start, source, size = move.region.start, move.source, move.region.size
            for layer in self.layers:
                layer[:, start : start + size] = layer[:, source : source + size].clone()

    def batch(self, spans: Sequence[Span], image_rows: list[int], added: torch.Tensor | None) -> PooledBatch:
        """What the layers are handed in a pass over `spans`."""
        if any(span.wholes for span in spans):
            raise NotImplementedError("FlashAttention has no place for tokens that see each other both ways")
        device = self._shape.device
        held = [(_start_of(span.cache), span.past, span.past + span.end - span.begin) for span in spans]
        places = [torch.arange(start + past, start + length) for start, past, length in held]
        borders = torch.tensor([0, *(span.end for span in spans)], dtype=torch.int32)
        numbers = torch.tensor([(start, length) for start, _, length in held], dtype=torch.int32)
        starts = torch.cat((numbers[:, 0], numbers[-1:].sum(1, dtype=torch.int32)))
        return PooledBatch(
            self.layers,
            upload(torch.cat(places), device),
            upload(borders, device),
            upload(starts, device),
            upload(numbers[:, 1].contiguous(), device),
            max(span.end - span.begin for span in spans),
            int(numbers[:, 1].max()),
            image_rows,
            added,
            sum(1 for _ in takewhile(lambda span: span.end - span.begin == 1, spans)),
        )


@dataclass(slots=True)
class PooledBatch:
    """Where the rows of one forward pass belong.

    Attributes:
        layers: of the pool.
        slots: where each row's keys and values go, (rows,), int64.
        borders: where each request's rows begin, and the end, (requests + 1,), int32.
        starts: where each request's keys begin in the pool, and an end, (requests + 1,), int32.
        lengths: keys of each request, this pass's among them, (requests,), int32.
        num_single: how many requests, from the first on, have one row each.
    """

    layers: Sequence[torch.Tensor]
    slots: torch.Tensor
    borders: torch.Tensor
    starts: torch.Tensor
    lengths: torch.Tensor
    max_rows: int
    max_length: int
    image_rows: list[int] = field(default_factory=list)
    added: torch.Tensor | None = None
    num_single: int = 0
    _rest: PooledBatch | None = None

    def after_single(self) -> PooledBatch:
        """The requests that come after those with one row each."""
        if not self.num_single:
            return self
        if self._rest is None:
            borders, starts = self.borders[self.num_single :] - self.num_single, self.starts[self.num_single :]
            slots, lengths = self.slots[self.num_single :], self.lengths[self.num_single :]
            self._rest = replace(self, slots=slots, borders=borders, starts=starts, lengths=lengths, num_single=0)
        return self._rest

    def attend(
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        scaling: float | None,
        window: int | None,
        only: Kernel | None,
    ) -> torch.Tensor:
        """See `attention.Batch`."""
        if only is not None:
            raise NotImplementedError("FlashAttention has no soft caps and no sinks")
        kept = self.layers[layer]
        kept[0].index_copy_(0, self.slots, key[0].transpose(0, 1))
        kept[1].index_copy_(0, self.slots, value[0].transpose(0, 1))
        return self.attend_kept(layer, query[0].transpose(0, 1), scaling, window).unsqueeze(0)

    def attend_kept(self, layer: int, query: torch.Tensor, scaling: float | None, window: int | None) -> torch.Tensor:
        """Attend with the query, (rows, heads, head dim), to what is in the pool, this pass's keys and values among it;
        gives the same shape."""
        keys, values = self.layers[layer]
        attended: torch.Tensor = torch.ops.aten._flash_attention_forward(
            query,
            keys,
            values,
            self.borders,
            self.starts,
            self.max_rows,
            self.max_length,
            0.0,
            True,
            False,
            scale=scaling,
            window_size_left=None if window is None else window - 1,
            window_size_right=None if window is None else 0,
            seqused_k=self.lengths,
        )[0]
        return attended


def _start_of(cache: Cache) -> int:
    if not isinstance(cache, PooledCache):
        raise TypeError(f"a cache of {type(cache).__name__} is not in the pool")
    return cache.start


def why_not_pooled(shape: CacheShape) -> str | None:
    """Why the caches of a model cannot be read by FlashAttention here; None where they can."""
    if shape.device.type != "cuda":
        return "FlashAttention needs an NVIDIA GPU"
    if shape.kernel != "sdpa":
        return f"{shape.kernel} attention was asked for"
    if shape.dtype not in (torch.bfloat16, torch.float16):
        return f"FlashAttention takes bfloat16 and float16, not {str(shape.dtype).removeprefix('torch.')}"
    if shape.widths[0] != shape.widths[1]:
        return f"FlashAttention takes values as wide as keys, not {shape.widths[1]} beside {shape.widths[0]}"
    major, minor = torch.cuda.get_device_capability(shape.device)
    if major < 8:
        return f"FlashAttention needs compute capability 8.0, this GPU has {major}.{minor}"
    if shape.head_dim > 256 or shape.head_dim % 8:
        return f"FlashAttention takes heads of up to 256 in steps of 8, not {shape.head_dim}"
    return None
