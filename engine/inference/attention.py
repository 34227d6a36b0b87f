"""Attention over packed sequences, each with a key/value cache of its own.

One forward pass carries the tokens of many requests one after another, without padding: the linear layers see one
matrix, and only attention needs to know where a request begins. transformers models take this function by name
through `AttentionInterface` and stay unchanged.

A request's cache is one tensor that grows with it (`SequenceCache`): contiguous, so that attention reads it in
place, which on a CPU is worth more than the packing density of fixed-size blocks. How much all requests together
may hold is decided before they start (scheduling/admission.py).

A cache is read by one of two kernels: `sdpa`, torch's fused one, or `eager`, the definition written out in float32,
which is slower, rounds less, and is there to compare with. What no fused kernel computes, soft caps and sinks, is left
to `eager` whatever the instance's kernel is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import torch
from torch.nn import functional
from transformers import AttentionInterface

from engine.inference.image_prompt import ImagePrompt
from engine.inference.upload import upload
from engine.models.spec import AttentionKernel
from engine.scheduling.admission import Stretch

NAME = "console_packed"
REFERENCE = "sdpa"  # transformers' own, for a model outside the runner; `eager` for one that has no other
_GROWTH = 1.5
_ROUND_TO = 64


_MaskKey = tuple[int, int, int | None, tuple[Stretch, ...]]


@dataclass(frozen=True, slots=True)
class CacheShape:
    """What one token's keys and values take in one model, and by which of `KERNELS` they are read. Values are as wide
    as keys unless `value_dim` says otherwise, as in multi-head latent attention."""

    num_layers: int
    num_kv_heads: int
    head_dim: int
    dtype: torch.dtype
    device: torch.device
    kernel: AttentionKernel = "sdpa"
    value_dim: int | None = None

    @property
    def widths(self) -> tuple[int, int]:
        """Elements of one head's key and value."""
        return self.head_dim, self.head_dim if self.value_dim is None else self.value_dim

    @property
    def bytes_per_token(self) -> int:
        return self.num_layers * self.num_kv_heads * sum(self.widths) * self.dtype.itemsize


# Keys and values of some tokens, each (layers, kv heads, tokens, head dim); of a pool's (layers, tokens, kv heads, head
# dim).
KeysValues = tuple[torch.Tensor, torch.Tensor]


class SequenceCache:
    """Keys and values of one request."""

    def __init__(self, shape: CacheShape, capacity: int) -> None:
        self.length = 0
        self._shape = shape
        self._keys, self._values = self._allocate(capacity)

    @property
    def kernel(self) -> Kernel:
        """What computes attention over it."""
        return KERNELS[self._shape.kernel]

    @property
    def capacity(self) -> int:
        """Tokens that fit before the cache must grow."""
        return self._keys.shape[2]

    @property
    def addresses(self) -> tuple[int, int]:
        """Where keys and values begin in memory, until it grows."""
        return self._keys.data_ptr(), self._values.data_ptr()

    def _allocate(self, capacity: int) -> KeysValues:
        shape = self._shape
        rounded = -(-capacity // _ROUND_TO) * _ROUND_TO
        keys, values = (
            torch.empty((shape.num_layers, shape.num_kv_heads, rounded, width), dtype=shape.dtype, device=shape.device)
            for width in shape.widths
        )
        return keys, values

    def reserve(self, length: int, limit: int) -> None:
        """Make room for `length` tokens in all, keeping what is there, and for no more than `limit` ahead of need."""
        if length <= self.capacity:
            return
        held = self._keys[:, :, : self.length], self._values[:, :, : self.length]
        self._keys, self._values = self._allocate(max(length, min(limit, int(self.capacity * _GROWTH))))
        self.put(0, held)

    def write(self, layer: int, start: int, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Put keys and values, each (kv heads, n, head dim), at `start`."""
        stop = start + keys.shape[1]
        self._keys[layer, :, start:stop] = keys
        self._values[layer, :, start:stop] = values

    def batch(self, spans: Sequence[Span], image_rows: list[int], added: torch.Tensor | None) -> PackedBatch:
        """See `Cache`."""
        return PackedBatch(spans, image_rows, added)

    def copy(self, start: int, stop: int) -> KeysValues:
        """A copy of the tokens `start:stop`."""
        return self._keys[:, :, start:stop].clone(), self._values[:, :, start:stop].clone()

    def put(self, start: int, copied: KeysValues) -> None:
        """Put what `copy` gave at `start`, for which there is room, and hold what is before its end."""
        keys, values = copied
        self.length = start + keys.shape[2]
        self._keys[:, :, start : self.length] = keys
        self._values[:, :, start : self.length] = values

    def read(self, layer: int, start: int, stop: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Views of keys and values, each (1, kv heads, stop - start, head dim)."""
        return self._keys[layer, :, start:stop].unsqueeze(0), self._values[layer, :, start:stop].unsqueeze(0)


class Cache(Protocol):
    """Keys and values of one request, `length` tokens of them."""

    length: int

    def batch(self, spans: Sequence[Span], image_rows: list[int], added: torch.Tensor | None) -> Batch:
        """What the layers of one forward pass are handed; the caches of all spans are of this kind."""

    def copy(self, start: int, stop: int) -> KeysValues:
        """A copy of the tokens `start:stop`."""

    def put(self, start: int, copied: KeysValues) -> None:
        """Put what `copy` gave at `start`, for which there is room, and hold what is before its end."""


class Batch(Protocol):
    """Attention of one forward pass.

    Attributes:
        image_rows, added: which rows stand for images, and what is added there after each of the first layers,
            (rows, layers, width), if anything is.
    """

    image_rows: list[int]
    added: torch.Tensor | None

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
        """Keep keys and values, (1, kv heads, rows, head dim), and attend with the query, (1, heads, rows, head dim): a
        row sees its request's keys up to its own, of them the last `window` where there is one. `only` is the one
        kernel that computes what the layer asks for, None where any does. Gives (1, rows, heads, head dim)."""


@dataclass(slots=True)
class Span:
    """Rows `begin:end` of the packed batch belong to one request, whose cache held `past` tokens before them. Among
    its tokens those of each of `wholes` see each other both ways."""

    cache: Cache
    begin: int
    end: int
    past: int
    wholes: tuple[Stretch, ...] = ()


@dataclass(slots=True)
class PackedBatch:
    """The spans of one forward pass, which every layer's attention goes through one by one."""

    spans: Sequence[Span]
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
        """See `Batch`."""
        outputs = [_attend_span(layer, span, self, query, key, value, scaling, window, only) for span in self.spans]
        rows = [output.transpose(1, 2) for output in outputs]
        packed = rows[0] if len(rows) == 1 else torch.cat(rows, dim=1)
        return packed.contiguous()  # layers view it with its heads joined


class PackedInput:
    """What one forward pass runs, collected request by request. `chosen` are the ids of the requests' tokens that only
    the device knows, in the order in which they are added."""

    def __init__(self, chosen: torch.Tensor | None = None) -> None:
        self._ids: list[int] = []
        self._chosen = chosen
        self._chosen_rows: list[int] = []
        self._positions: list[int] = []
        self._spans: list[Span] = []
        self._placed: list[tuple[int, torch.Tensor]] = []
        self._features: list[tuple[list[int], torch.Tensor]] = []

    def __len__(self) -> int:
        """Tokens so far."""
        return len(self._ids)

    def add(self, cache: Cache, token_ids: Sequence[int], past: int, images: ImagePrompt | None = None) -> None:
        """Run `token_ids` after the `past` tokens that `cache` holds, and count them as held from now on; none are the
        next one of `chosen`. `images` are those of the prompt they are of."""
        begin = len(self._ids)
        if not token_ids:
            self._chosen_rows.append(begin)
            token_ids = (0,)
        cache.length = past + len(token_ids)
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
        ids = upload(torch.tensor([self._ids]), device)
        if self._chosen is not None:
            ids[0, upload(torch.tensor(self._chosen_rows), device)] = self._chosen
        return {
            **({"inputs_embeds": self._embeddings(model, ids)} if self._features else {"input_ids": ids}),
            "position_ids": upload(self._position_ids(), device),
            "use_cache": False,
            "packed_batch": self._batch(),
        }

    def _batch(self) -> Batch:
        rows = [row for rows, _ in self._features for row in rows]
        added = torch.cat([values[:, 1:] for _, values in self._features]) if rows else None
        if added is not None and not added.shape[1]:
            added = None
        return self._spans[0].cache.batch(self._spans, rows, added)

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
    packed_batch: Batch | None = None,
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
        softcap: scores are bent to stay below it, `softcap * tanh(score / softcap)` (Gemma 2, arXiv:2408.00118).
        s_aux: a score a head that takes part in the softmax and has no value (gpt-oss), shape (heads,).

    Returns:
        (1, tokens, heads, head dim), and no weights.

    Raises:
        NotImplementedError: there is no `packed_batch`, or no window for a layer that has one.
    """
    if packed_batch is None:
        raise NotImplementedError("its layers do not hand on what tells the requests of a batch apart")
    layer: int = module.layer_idx  # type: ignore[assignment]
    if sliding_window is None and _has_window(module, layer):
        raise NotImplementedError("its layers do not hand on how far they look back")
    only = None if softcap is None and s_aux is None else partial(_attend_eagerly, softcap=softcap, sinks=s_aux)
    return packed_batch.attend(layer, query, key, value, scaling, sliding_window, only), None


def _has_window(module: torch.nn.Module, layer: int) -> bool:
    """Whether the config says that the layer looks back through a window, which then must be told to `attend`: the few
    tokens of a comparison would not show that it is missing."""
    config: Any = getattr(module, "config", None)
    kinds = getattr(config, "layer_types", None)
    if kinds is not None:
        return bool(kinds[layer] == "sliding_attention")
    return getattr(config, "sliding_window", None) is not None


def _attend_span(
    layer: int,
    span: Span,
    batch: PackedBatch,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    scaling: float | None,
    window: int | None,
    only: Kernel | None,
) -> torch.Tensor:
    cache, begin, end, past = span.cache, span.begin, span.end, span.past
    if not isinstance(cache, SequenceCache):
        raise TypeError(f"a cache of {type(cache).__name__} is not read span by span")
    num_queries, num_keys = end - begin, past + end - begin
    cache.write(layer, past, key[0, :, begin:end], value[0, :, begin:end])
    first = max(0, num_keys - window) if window is not None and num_queries == 1 else 0
    keys, values = cache.read(layer, first, num_keys)
    is_plain = past == 0 and not span.wholes and (window is None or num_keys <= window)
    mask = None
    if num_queries > 1 and not is_plain:
        mask = batch.mask(num_queries, num_keys, window, query.device, span.wholes)
    is_causal = num_queries > 1 and mask is None
    kernel = only or cache.kernel
    return kernel(query[:, :, begin:end], keys, values, mask, is_causal, scaling)


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
    softcap: float | None = None,
    sinks: torch.Tensor | None = None,
) -> torch.Tensor:
    """softmax(QK' * scale)V with every score written out and all of it in float32."""
    _, num_heads, num_queries, head_dim = query.shape
    num_kv_heads, num_keys = keys.shape[1], keys.shape[2]
    scale = 1 / math.sqrt(head_dim) if scaling is None else scaling
    rows = query[0].float().reshape(num_kv_heads, -1, head_dim) * scale  # the heads that share keys, one after another
    scores = (rows @ keys[0].float().mT).view(num_heads, num_queries, num_keys)
    if softcap is not None:
        scores = scores.div_(softcap).tanh_().mul_(softcap)
    if is_causal:
        mask = torch.ones(num_queries, num_keys, dtype=torch.bool, device=query.device).tril()
    if mask is not None:
        scores.masked_fill_(~mask, -math.inf)
    if sinks is not None:
        scores = torch.cat([scores, sinks.float().view(-1, 1, 1).expand(-1, num_queries, 1)], dim=-1)
    weights = scores.softmax(dim=-1)[..., :num_keys].reshape(num_kv_heads, -1, num_keys)
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
    with kept(model):
        use(model, name)
        yield


@contextmanager
def kept(model: Any) -> Iterator[None]:
    """Whatever attention `model` is told to use within the block, have it use the one of before afterwards."""
    before = model.config._attn_implementation
    try:
        yield
    finally:
        use(model, before)


def use(model: Any, name: str) -> None:
    """Have `model` write text with the attention of that name. What looks at pictures keeps its own."""
    config = model.config
    if name == REFERENCE and not model._supports_sdpa:
        name = "eager"
    text = config.get_text_config()
    part = next((key for key in config.sub_configs if getattr(config, key, None) is text), None)
    model.set_attn_implementation(name if part is None else {"": name, part: name})


AttentionInterface.register(NAME, attend)
# cuDNN's attention is planned anew for each length of the keys, and every step of an answer has a new one.
torch.backends.cuda.enable_cudnn_sdp(False)
