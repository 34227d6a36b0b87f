"""Each kernel against its definition in torch."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from engine.inference.fused import kernels

_DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
_EPSILON = 1e-5


def _random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(_DEVICE)


def _norm(rows: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return functional.rms_norm(rows, (rows.shape[-1],), weight, _EPSILON)


@pytest.mark.parametrize("num_in", [5, 64, 1_500])
@pytest.mark.parametrize("num_out", [1, 37])
def test_a_row_times_a_weight(num_in: int, num_out: int) -> None:
    row, weight, bias = _random(1, num_in), _random(num_out, num_in, seed=1), _random(num_out, seed=2)
    torch.testing.assert_close(kernels.multiply_row(row, weight), row @ weight.T, atol=1e-3, rtol=1e-4)
    norm, residual = _random(num_in, seed=3), _random(1, num_out, seed=4)
    found = kernels.multiply_row(row, weight, bias, norm=norm, epsilon=_EPSILON, residual=residual)
    expected = _norm(row, norm) @ weight.T + bias + residual
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-4)


def test_a_row_times_a_gated_weight() -> None:
    row, weight, bias, norm = _random(1, 96), _random(2 * 21, 96, seed=1), _random(42, seed=2), _random(96, seed=3)
    found = kernels.multiply_row(row, weight, bias, norm=norm, epsilon=_EPSILON, is_gated=True)
    joined = _norm(row, norm) @ weight.T + bias
    expected = functional.silu(joined[:, :21]) * joined[:, 21:]
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.int8, torch.float8_e4m3fn])
@pytest.mark.parametrize("num_rows", [1, 3, 40])
def test_products_of_stored_weights(num_rows: int, dtype: torch.dtype) -> None:
    rows, weight, bias, scale = (
        _random(num_rows, 70),
        (_random(50, 70, seed=1) * 9).to(dtype),
        _random(50, seed=2),
        _random(50, seed=3).abs() / 9,
    )
    restored = weight.float() * scale[:, None]
    torch.testing.assert_close(kernels.restore(weight, scale, torch.float32), restored)
    expected = rows @ restored.T + bias
    torch.testing.assert_close(kernels.multiply_few(rows, weight, scale, bias), expected, atol=2e-2, rtol=1e-2)
    if num_rows == 1:
        found = kernels.multiply_row(rows, weight, bias, scale)
        torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-4)
        gated = kernels.multiply_row(rows, weight, bias, scale, is_gated=True)
        expected = functional.silu(expected[:, :25]) * expected[:, 25:]
        torch.testing.assert_close(gated, expected, atol=1e-3, rtol=1e-4)


def test_adding_and_norm() -> None:
    states, added, norm = _random(3, 100), _random(3, 100, seed=1), _random(100, seed=2)
    before = states.clone()
    torch.testing.assert_close(kernels.add_and_norm(states, None, norm, _EPSILON), _norm(before, norm))
    assert torch.equal(states, before)
    found = kernels.add_and_norm(states, added, norm, _EPSILON)
    torch.testing.assert_close(states, before + added)
    torch.testing.assert_close(found, _norm(before + added, norm))


def test_gate() -> None:
    joined = _random(2, 2 * 1_100)
    expected = functional.silu(joined[:, :1_100]) * joined[:, 1_100:]
    torch.testing.assert_close(kernels.gate(joined), expected)


@pytest.mark.parametrize("has_norms", [False, True])
@pytest.mark.parametrize(("num_heads", "num_kv_heads", "head_dim"), [(9, 3, 24), (4, 4, 64), (8, 1, 16)])
def test_turning_and_keeping(num_heads: int, num_kv_heads: int, head_dim: int, has_norms: bool) -> None:
    joined = _random(3, num_heads + 2 * num_kv_heads, head_dim)
    turns = _random(3, head_dim, seed=1), _random(3, head_dim, seed=2)
    norms = (_random(head_dim, seed=3), _random(head_dim, seed=4)) if has_norms else None
    slots = torch.tensor([4, 0, 6], device=_DEVICE)
    kept = torch.full((2, 8, num_kv_heads, head_dim), 7.0, device=_DEVICE)
    query, key, value = joined.clone().split([num_heads, num_kv_heads, num_kv_heads], dim=1)
    if norms is not None:
        query, key = _norm(query, norms[0]), _norm(key, norms[1])
    found = kernels.turn_and_keep(joined, turns, norms, _EPSILON, slots, kept)
    torch.testing.assert_close(found, _turned(query, *turns))
    torch.testing.assert_close(kept[0, slots], _turned(key, *turns))
    assert torch.equal(kept[1, slots], value)
    others = [place for place in range(8) if place not in (4, 0, 6)]
    assert torch.equal(kept[:, others], torch.full_like(kept[:, others], 7.0))


def _turned(heads: torch.Tensor, cosine: torch.Tensor, sine: torch.Tensor) -> torch.Tensor:
    low, high = heads.chunk(2, dim=-1)
    return heads * cosine[:, None] + torch.cat((-high, low), dim=-1) * sine[:, None]


@settings(max_examples=15, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 300), min_size=1, max_size=4),
    heads=st.sampled_from([(9, 3, 24), (4, 4, 8), (8, 1, 64)]),
    window=st.sampled_from([None, 1, 5, 70]),
    busy=st.sampled_from([1, 64, 256]),
)
def test_attention_of_single_rows(
    lengths: list[int], heads: tuple[int, int, int], window: int | None, busy: int
) -> None:
    """Alone or shared among several programs, with keys of others before and behind in the pool."""
    num_heads, num_kv_heads, head_dim = heads
    kept = _random(2, sum(lengths) + 5, num_kv_heads, head_dim)
    query = _random(len(lengths), num_heads + 2, head_dim, seed=1)[:, :num_heads]
    starts = [2 + sum(lengths[:index]) for index in range(len(lengths))]
    out = torch.empty((len(lengths), num_heads, head_dim), device=_DEVICE)
    numbers = (torch.tensor(each, dtype=torch.int32, device=_DEVICE) for each in (starts, lengths))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels, "_BUSY", busy)
        kernels.attend_rows(query, kept, *numbers, 0.3, window, out)
    for index, (start, length) in enumerate(zip(starts, lengths, strict=True)):
        first = start if window is None else max(start, start + length - window)
        keys, values = kept[:, first : start + length].transpose(1, 2)
        expected = functional.scaled_dot_product_attention(
            query[index][None, :, None], keys[None], values[None], scale=0.3, enable_gqa=True
        )
        limit = 1e-2 if _DEVICE.type == "cuda" else 1e-4  # a GPU's products of float32 have ten bits
        torch.testing.assert_close(out[index], expected[0, :, 0], atol=limit, rtol=limit)
