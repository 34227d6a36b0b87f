from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.inference.attention import KERNELS, CacheShape, PackedBatch, SequenceCache, Span, attend
from engine.models.spec import AttentionKernel
from engine.scheduling.admission import Stretch

_SHAPE = CacheShape(num_layers=2, num_kv_heads=2, head_dim=8, dtype=torch.float32, device=torch.device("cpu"))
_EAGER = replace(_SHAPE, kernel="eager")
_NUM_HEADS = 4
Inputs = tuple[torch.Tensor, torch.Tensor, torch.Tensor]

_MODULE: Any = SimpleNamespace(layer_idx=1)


def _random(num_heads: int, num_tokens: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(1, num_heads, num_tokens, _SHAPE.head_dim, generator=generator)


def _inputs(num_tokens: int, seed: int = 0) -> Inputs:
    kv_heads = _SHAPE.num_kv_heads
    return (
        _random(_NUM_HEADS, num_tokens, 3 * seed),
        _random(kv_heads, num_tokens, 3 * seed + 1),
        _random(kv_heads, num_tokens, 3 * seed + 2),
    )


def _reference(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    scale: float,
    window: int | None,
    wholes: tuple[Stretch, ...] = (),
    softcap: float | None = None,
    sinks: torch.Tensor | None = None,
) -> torch.Tensor:
    """Attention by its definition, in double precision; (1, tokens, heads, head dim)."""
    num_tokens, groups = query.shape[2], query.shape[1] // key.shape[1]
    keys, values = (tensor.repeat_interleave(groups, dim=1).double() for tensor in (key, value))
    position = torch.arange(num_tokens)
    distance = position[:, None] - position[None, :]
    is_seen = distance >= 0
    for start, stop in wholes:
        is_in = (position >= start) & (position < stop)
        is_seen |= is_in[:, None] & is_in[None, :]
    if window is not None:
        is_seen &= distance < window
    scores = query.double() @ keys.transpose(-1, -2) * scale
    if softcap is not None:
        scores = (scores / softcap).tanh() * softcap
    weights = scores.masked_fill(~is_seen, -math.inf).exp()
    total = weights.sum(-1, keepdim=True)
    if sinks is not None:
        total = total + sinks.double().exp()[None, :, None, None]
    return (weights / total @ values).transpose(1, 2).float()


def _run(
    inputs: Inputs,
    cuts: list[int],
    window: int | None = None,
    shape: CacheShape = _SHAPE,
    wholes: tuple[Stretch, ...] = (),
    **extra: Any,
) -> torch.Tensor:
    query, key, value = inputs
    cache = SequenceCache(shape, 1)
    outputs = []
    for start, stop in zip([0, *cuts], [*cuts, query.shape[2]], strict=True):
        cache.reserve(stop, query.shape[2])
        cache.length = stop
        batch = PackedBatch([Span(cache, 0, stop - start, start, wholes)])
        part = [tensor[:, :, start:stop] for tensor in (query, key, value)]
        output, weights = attend(
            _MODULE, part[0], part[1], part[2], None, packed_batch=batch, scaling=0.3, sliding_window=window, **extra
        )
        assert weights is None
        outputs.append(output)
    return torch.cat(outputs, dim=1)


@pytest.mark.parametrize("window", [None, 1, 5, 20, 200])
@pytest.mark.parametrize(
    "cuts", [[], [7], [16, 32], list(range(1, 40)), [30, 31, 32, 33]], ids=["one go", "2", "3", "decode", "mixed"]
)
@pytest.mark.parametrize("shape", [_SHAPE, _EAGER], ids=["sdpa", "eager"])
def test_equals_the_definition(cuts: list[int], window: int | None, shape: CacheShape) -> None:
    inputs = _inputs(40)
    expected = _reference(*inputs, 0.3, window)
    torch.testing.assert_close(_run(inputs, cuts, window, shape), expected, rtol=1e-4, atol=1e-5)


@settings(max_examples=20)
@given(
    cuts=st.lists(st.integers(1, 29), unique=True, max_size=6).map(sorted),
    window=st.one_of(st.none(), st.integers(1, 35)),
)
def test_any_cutting_gives_the_same(cuts: list[int], window: int | None) -> None:
    inputs = _inputs(30, seed=1)
    expected = _reference(*inputs, 0.3, window)
    torch.testing.assert_close(_run(inputs, cuts, window), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("window", [None, 1, 5, 20, 200])
@pytest.mark.parametrize("cuts", [[], [6], [18], [6, 18, 19], [3, 25, 38]], ids=str)
@pytest.mark.parametrize("shape", [_SHAPE, _EAGER], ids=["sdpa", "eager"])
def test_tokens_of_an_image_see_each_other(cuts: list[int], window: int | None, shape: CacheShape) -> None:
    """Both ways, and within the window where a layer has one."""
    inputs, wholes = _inputs(40, seed=2), ((6, 18), (19, 23))
    expected = _reference(*inputs, 0.3, window, wholes)
    torch.testing.assert_close(_run(inputs, cuts, window, shape, wholes), expected, rtol=1e-4, atol=1e-5)


def test_requests_in_one_batch_do_not_see_each_other() -> None:
    lengths = [5, 1, 12]
    parts = [_inputs(length, seed) for seed, length in enumerate(lengths)]
    alone = [_run(part, []) for part in parts]
    packed = [torch.cat(tensors, dim=2) for tensors in zip(*parts, strict=True)]
    spans, begin = [], 0
    for length in lengths:
        spans.append(Span(SequenceCache(_SHAPE, length), begin, begin + length, 0))
        begin += length
    together, _ = attend(_MODULE, packed[0], packed[1], packed[2], None, packed_batch=PackedBatch(spans), scaling=0.3)
    assert torch.equal(together, torch.cat(alone, dim=1))
    together.view(1, begin, -1)  # as some models do; others reshape


def test_eager_attention_rounds_once() -> None:
    """In bfloat16 its result is the definition's, rounded; the fused kernel's need not be."""
    query, key, value = (tensor.bfloat16() for tensor in _inputs(40))
    expected = _reference(query.float(), key.float(), value.float(), 0.3, None)
    found = _run((query, key, value), [7], shape=replace(_EAGER, dtype=torch.bfloat16))
    assert found.dtype is torch.bfloat16
    torch.testing.assert_close(found, expected.bfloat16(), rtol=2**-8, atol=1e-6)


def test_each_choice_has_a_kernel() -> None:
    assert set(KERNELS) == set(get_args(AttentionKernel))


def test_growth_keeps_contents() -> None:
    cache = SequenceCache(_SHAPE, 10)
    _, keys, values = _inputs(64)
    cache.write(0, 0, keys[0], values[0])
    cache.write(1, 0, values[0], keys[0])
    cache.length = 64
    before = cache.capacity
    cache.reserve(before, 1000)
    assert cache.capacity == before
    cache.reserve(before + 1, 1000)
    assert cache.capacity >= before * 1.5
    assert torch.equal(cache.read(0, 0, 64)[0], keys)
    assert torch.equal(cache.read(1, 10, 20)[0], values[:, :, 10:20])
    assert torch.equal(cache.read(1, 0, 64)[1], keys)


def test_growth_ahead_of_need_ends_at_the_limit() -> None:
    cache = SequenceCache(_SHAPE, 640)
    cache.reserve(641, 700)
    assert cache.capacity == 704  # 700 rounded up, not 640 and a half more


@given(steps=st.lists(st.integers(1, 90), min_size=1, max_size=6))
def test_a_cache_that_grows_step_by_step_holds_everything(steps: list[int]) -> None:
    total = sum(steps)
    _, keys, values = _inputs(total)
    cache, past = SequenceCache(_SHAPE, 1), 0
    for step in steps:
        cache.reserve(past + step, total)
        cache.write(1, past, keys[0, :, past : past + step], values[0, :, past : past + step])
        past = cache.length = past + step
        assert cache.capacity >= past
    read_keys, read_values = cache.read(1, 0, total)
    assert torch.equal(read_keys, keys)
    assert torch.equal(read_values, values)


def test_bytes_per_token() -> None:
    assert _SHAPE.bytes_per_token == 2 * 2 * 2 * 8 * 4
    cache = SequenceCache(_SHAPE, 64)
    assert cache._keys.nbytes + cache._values.nbytes == 64 * _SHAPE.bytes_per_token


@pytest.mark.parametrize(
    "config", [SimpleNamespace(sliding_window=5), SimpleNamespace(layer_types=["full_attention", "sliding_attention"])]
)
def test_a_window_that_is_not_handed_on_is_refused(config: SimpleNamespace) -> None:
    module: Any = SimpleNamespace(layer_idx=1, config=config)
    batch = PackedBatch([Span(SequenceCache(_SHAPE, 4), 0, 4, 0)])
    attend(module, *_inputs(4), None, packed_batch=batch, sliding_window=5)
    with pytest.raises(NotImplementedError, match="how far they look back"):
        attend(module, *_inputs(4), None, packed_batch=batch)


_SINKS = torch.tensor([2.0, -1.0, 0.0, 4.0])


@pytest.mark.parametrize("shape", [_SHAPE, _EAGER], ids=["sdpa", "eager"])
@pytest.mark.parametrize("window", [None, 5])
@pytest.mark.parametrize("cuts", [[], [7, 39]], ids=["one go", "3"])
@pytest.mark.parametrize(("softcap", "sinks"), [(0.5, None), (None, _SINKS), (0.5, _SINKS)])
def test_soft_caps_and_sinks_whatever_the_kernel(
    softcap: float | None, sinks: torch.Tensor | None, cuts: list[int], window: int | None, shape: CacheShape
) -> None:
    inputs = _inputs(40)
    expected = _reference(*inputs, 0.3, window, softcap=softcap, sinks=sinks)
    found = _run(inputs, cuts, window, shape, softcap=softcap, s_aux=sinks)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(found, _reference(*inputs, 0.3, window), rtol=1e-2)


@pytest.mark.parametrize("kernel", KERNELS)
def test_values_of_another_width_than_keys(kernel: AttentionKernel) -> None:
    narrow = replace(_SHAPE, value_dim=5, kernel=kernel)
    assert narrow.bytes_per_token == 2 * 2 * (8 + 5) * 4
    query, key, value = _inputs(150)
    inputs = query, key, value[..., :5]
    expected = _reference(*inputs, 0.3, None)
    torch.testing.assert_close(_run(inputs, [7, 70], shape=narrow), expected, rtol=1e-4, atol=1e-5)
