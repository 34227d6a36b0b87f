"""Attention over packed sequences, each with a key/value cache of its own.

One forward pass carries the tokens of many requests one after another, without padding: the linear layers see one
matrix, and only attention needs to know where a request begins. transformers models take this function by name
through `AttentionInterface` and stay unchanged.

A request's cache is one tensor that grows with it (`SequenceCache`): contiguous, so that attention reads it in
place, which on a CPU is worth more than the packing density of fixed-size blocks. How much all requests together
may hold is decided before they start (scheduling/admission.py).

A cache is read by one of two kernels: `sdpa`, torch's fused one, or `eager`, the definition written out in float32,
which is slower, rounds less, and is there to compare with.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.nn import functional
from transformers import AttentionInterface

from engine.inference.image_prompt import ImagePrompt
from engine.models.spec import AttentionKernel
from engine.scheduling.admission import Stretch

NAME = "console_packed"
REFERENCE = "sdpa"  # transformers' own, for a model outside the runner
_GROWTH = 1.5
_ROUND_TO = 64


_MaskKey = tuple[int, int, int | None, tuple[Stretch, ...]]


@dataclass(frozen=True, slots=True)
class CacheShape:
    """What one token's keys and values take in one model, and by which of `KERNELS` they are read."""

    num_layers: int
    num_kv_heads: int
    head_dim: int
    dtype: torch.dtype
    device: torch.device
    kernel: AttentionKernel = "sdpa"

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
    def kernel(self) -> Kernel:
        """What computes attention over it."""
        return KERNELS[self._shape.kernel]

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

    def copy(self, start: int, stop: int) -> torch.Tensor:
        """A copy of the tokens `start:stop`, shape (layers, 2, kv heads, stop - start, head dim)."""
        return self._data[:, :, :, start:stop].clone()

    def put(self, start: int, copied: torch.Tensor) -> None:
        """Put what `copy` gave at `start`, for which there is room, and hold what is before its end."""
        self.length = start + copied.shape[3]
        self._data[:, :, :, start : self.length] = copied

    def read(self, layer: int, start: int, stop: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Views of keys and values, each (1, kv heads, stop - start, head dim)."""
        return self._data[layer, 0, :, start:stop].unsqueeze(0), self._data[layer, 1, :, start:stop].unsqueeze(0)


@dataclass(slots=True)
class Span:
    """Rows `begin:end` of the packed batch belong to one request, whose cache held `past` tokens before them. Among
    its tokens those of each of `wholes` see each other both ways."""

    cache: SequenceCache
    begin: int
    end: int
    past: int
    wholes: tuple[Stretch, ...] = ()


@dataclass(slots=True)
class PackedBatch:
    """The spans of one forward pass, handed to every layer's attention; and which of its rows stand for images, with
    what is added there after each of the first layers, (rows, layers, width), if anything is."""

    spans: list[Span]
    image_rows: list[int] = field(default_factory=list)
    added: torch.Tensor | None = None
    _masks: dict[_MaskKey, torch.Tensor] = field(default_factory=dict)

    def mask(
        self,
        num_queries: int,
        num_keys: int,
        window: int | None,
        device: torch.device,
        wholes: tuple[Stretch, ...] = (),
    ) -> torch.Tensor:
        """True where query i, at position num_keys - num_queries + i, may look; made once for all layers."""
        key = (num_queries, num_keys, window, wholes)
        if key not in self._masks:
            offset = num_keys - num_queries
            mask = torch.ones(num_queries, num_keys, dtype=torch.bool, device=device).tril(offset)
            for start, stop in wholes:
                mask[max(0, start - offset) : max(0, stop - offset), start:stop] = True
            if window is not None:
                mask = mask.triu(offset - window + 1)
            self._masks[key] = mask
        return self._masks[key]


class PackedInput:
    """What one forward pass runs, collected request by request."""

    def __init__(self) -> None:
        self._ids: list[int] = []
        self._positions: list[int] = []
        self._spans: list[Span] = []
        self._placed: list[tuple[int, torch.Tensor]] = []
        self._features: list[tuple[list[int], torch.Tensor]] = []

    def __len__(self) -> int:
        """Tokens so far."""
        return len(self._ids)

    def add(self, cache: SequenceCache, token_ids: Sequence[int], past: int, images: ImagePrompt | None = None) -> None:
        """Run `token_ids` after the `past` tokens that `cache` holds, and count them as held from now on. `images`
        are those of the prompt they are of."""
        begin, cache.length = len(self._ids), past + len(token_ids)
        if images is not None:
            self._show(images, begin, past, cache.length)
        wholes = () if images is None else images.wholes
        self._spans.append(Span(cache, begin, begin + len(token_ids), past, wholes))
        self._ids.extend(token_ids)
        self._positions.extend(range(past, cache.length))

    def _show(self, images: ImagePrompt, begin: int, past: int, stop: int) -> None:
        positions, features = images.positions(past, stop), images.features(past, stop)
        if positions is not None:
            self._placed.append((begin, positions))
        if features is not None:
            rows, values = features
            self._features.append(([begin + row for row in rows], values))

    def arguments(self, model: Any, device: torch.device) -> dict[str, Any]:
        """What `model` is called with: ids, or embeddings where images are among them, and positions, (1, tokens) or
        (3, 1, tokens)."""
        ids = torch.tensor([self._ids], device=device)
        return {
            **({"inputs_embeds": self._embeddings(model, ids)} if self._features else {"input_ids": ids}),
            "position_ids": self._position_ids().to(device),
            "use_cache": False,
            "packed_batch": self._batch(),
        }

    def _batch(self) -> PackedBatch:
        if not self._features:
            return PackedBatch(self._spans)
        rows = [row for rows, _ in self._features for row in rows]
        added = torch.cat([values[:, 1:] for _, values in self._features])
        return PackedBatch(self._spans, rows, added if added.shape[1] else None)

    def _position_ids(self) -> torch.Tensor:
        plain = torch.tensor([self._positions])
        if not self._placed:
            return plain
        positions = plain.repeat(3, 1, 1)
        for begin, placed in self._placed:
            positions[:, 0, begin : begin + placed.shape[1]] = placed
        return positions

    def _embeddings(self, model: Any, ids: torch.Tensor) -> torch.Tensor:
        embeddings: torch.Tensor = model.get_input_embeddings()(ids)
        for rows, values in self._features:
            embeddings[0, rows] = values[:, 0].to(embeddings.dtype)
        return embeddings


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
    is_plain = past == 0 and not span.wholes and (window is None or num_keys <= window)
    mask = None
    if num_queries > 1 and not is_plain:
        mask = batch.mask(num_queries, num_keys, window, query.device, span.wholes)
    is_causal = num_queries > 1 and mask is None
    return span.cache.kernel(query[:, :, begin:end], keys, values, mask, is_causal, scaling)


def _attend_fused(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    mask: torch.Tensor | None,
    is_causal: bool,
    scaling: float | None,
) -> torch.Tensor:
    """torch's fused kernel for the device, with partial sums in float32."""
    return functional.scaled_dot_product_attention(
        query,
        keys,
        values,
        attn_mask=mask,
        is_causal=is_causal,
        scale=scaling,
        enable_gqa=query.shape[1] != keys.shape[1],
    )


def _attend_eagerly(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    mask: torch.Tensor | None,
    is_causal: bool,
    scaling: float | None,
) -> torch.Tensor:
    """softmax(QK' * scale)V with every score written out and all of it in float32."""
    _, num_heads, num_queries, head_dim = query.shape
    num_kv_heads, num_keys = keys.shape[1], keys.shape[2]
    scale = 1 / math.sqrt(head_dim) if scaling is None else scaling
    rows = query[0].float().reshape(num_kv_heads, -1, head_dim) * scale  # the heads that share keys, one after another
    scores = (rows @ keys[0].float().mT).view(num_heads, num_queries, num_keys)
    if is_causal:
        mask = torch.ones(num_queries, num_keys, dtype=torch.bool, device=query.device).tril()
    if mask is not None:
        scores.masked_fill_(~mask, -math.inf)
    weights = scores.softmax(dim=-1).view(num_kv_heads, -1, num_keys)
    return (weights @ values[0].float()).view(1, num_heads, num_queries, -1).to(query.dtype)


# Query (1, heads, n, head dim), keys and values (1, kv heads, m, head dim), a mask (n, m) or causal, the scale; gives
# (1, heads, n, head dim).
Kernel = Callable[
    [torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor | None, bool, float | None],
    torch.Tensor,
]
KERNELS: dict[AttentionKernel, Kernel] = {"sdpa": _attend_fused, "eager": _attend_eagerly}


@contextmanager
def used(model: Any, name: str) -> Iterator[None]:
    """Have `model` use the attention of that name (`NAME`, or transformers' own such as `sdpa`) within the block."""
    before = model.config._attn_implementation
    use(model, name)
    try:
        yield
    finally:
        use(model, before)


def use(model: Any, name: str) -> None:
    """Have `model` write text with the attention of that name. What looks at pictures keeps its own."""
    config = model.config
    text = config.get_text_config()
    part = next((key for key in config.sub_configs if getattr(config, key, None) is text), None)
    model.set_attn_implementation(name if part is None else {"": name, part: name})


AttentionInterface.register(NAME, attend)
# cuDNN's attention is planned anew for each length of the keys, and every step of an answer has a new one.
torch.backends.cuda.enable_cudnn_sdp(False)
