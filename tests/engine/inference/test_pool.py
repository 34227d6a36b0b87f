"""The pool of caches, on a CPU: all but the kernel that reads it (tests/engine/test_gpu.py)."""

from __future__ import annotations

import pytest
import torch

from engine.inference.attention import CacheShape, Span
from engine.inference.pool import KvPool, PooledCache, why_not_pooled

_SHAPE = CacheShape(2, 3, 8, torch.float32, torch.device("cpu"))


def _filled(pool: KvPool, num_tokens: int, seed: int) -> tuple[PooledCache, torch.Tensor]:
    """A cache that holds noise, and that noise (2, layers, tokens, kv heads, head dim)."""
    cache = pool.open(num_tokens)
    noise = torch.randn(2, 2, num_tokens, 3, 8, generator=torch.Generator().manual_seed(seed))
    cache.put(0, (noise[0], noise[1]))
    return cache, noise


def _holds(cache: PooledCache, noise: torch.Tensor) -> bool:
    keys, values = cache.copy(0, noise.shape[2])
    return torch.equal(keys, noise[0]) and torch.equal(values, noise[1])


def _fill_the_device_once(pool: KvPool, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no room for the second layer that is moved to a larger place, and for those after it there is."""
    allocate, sizes = pool._allocate, []

    def allocate_one(num_tokens: int) -> torch.Tensor:
        sizes.append(num_tokens)
        if len(sizes) == 2:
            raise torch.OutOfMemoryError("no room")
        return allocate(num_tokens)

    monkeypatch.setattr(pool, "_allocate", allocate_one)


def test_a_pool_that_grows_and_is_compacted_keeps_what_it_holds() -> None:
    pool = KvPool(_SHAPE, max_tokens=200, first_tokens=32)
    held = {seed: _filled(pool, 10, seed) for seed in range(3)}
    assert (pool.regions.size, pool.version) == (33, 0)
    held[3] = _filled(pool, 30, 3)
    assert (pool.regions.size, pool.version) == (66, 1)
    del held[0], held[2]
    held[4] = _filled(pool, 22, 4)  # fits into no hole, and into all of them together
    assert (pool.regions.size, pool.version) == (66, 1)
    assert sorted(cache.start for cache, _ in held.values()) == [1, 11, 41]
    for cache, noise in held.values():
        assert _holds(cache, noise)


def test_a_device_without_room_for_a_larger_pool_leaves_it_usable(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first layer has moved by then, which whoever knows where the layers are must see."""
    pool = KvPool(_SHAPE, max_tokens=200, first_tokens=32)
    cache, noise = _filled(pool, 20, 0)
    _fill_the_device_once(pool, monkeypatch)
    with pytest.raises(torch.OutOfMemoryError):
        pool.open(40)
    assert pool.version == 1
    assert pool.open(12).capacity == 12
    assert _holds(cache, noise)
    assert pool.open(40).capacity == 40
    assert _holds(cache, noise)


def test_the_pool_has_a_region_back_once_nobody_holds_its_cache() -> None:
    pool = KvPool(_SHAPE, max_tokens=64, first_tokens=64)
    cache = pool.open(40)
    cache.reserve(40, 64)
    with pytest.raises(ValueError, match="41 tokens do not fit into a region of 40"):
        cache.reserve(41, 64)
    assert pool.regions.num_free == 64 - 40
    del cache
    assert pool.regions.num_free == 64


def test_no_more_than_the_limit_is_given() -> None:
    pool = KvPool(_SHAPE, max_tokens=50, first_tokens=10)
    held = pool.open(30)
    with pytest.raises(MemoryError, match="21 tokens of cache are needed, 20 are free"):
        pool.open(21)
    assert pool.open(20).capacity == 20
    assert held.capacity == 30


def test_where_the_rows_of_a_pass_belong() -> None:
    pool = KvPool(_SHAPE, max_tokens=64)
    first, second = pool.open(10), pool.open(20)
    batch = first.batch([Span(first, 0, 3, 4), Span(second, 3, 4, 0)], [], None)
    assert batch.slots.tolist() == [5, 6, 7, 11]
    assert batch.borders.tolist() == [0, 3, 4]
    assert batch.starts.tolist()[:2] == [1, 11]
    assert batch.lengths.tolist() == [7, 1]
    assert (batch.max_rows, batch.max_length) == (3, 7)
    with pytest.raises(NotImplementedError, match="both ways"):
        first.batch([Span(first, 0, 3, 4, ((0, 2),))], [], None)


def test_why_caches_are_not_pooled() -> None:
    assert why_not_pooled(_SHAPE) == "FlashAttention needs an NVIDIA GPU"
    gpu = torch.device("cuda:0")
    assert "eager" in str(why_not_pooled(CacheShape(2, 3, 8, torch.bfloat16, gpu, "eager")))
    assert "float32" in str(why_not_pooled(CacheShape(2, 3, 8, torch.float32, gpu)))
    assert "as wide as keys" in str(why_not_pooled(CacheShape(2, 3, 24, torch.bfloat16, gpu, value_dim=16)))


def test_a_pool_that_grew_in_part_grows_to_less(monkeypatch: pytest.MonkeyPatch) -> None:
    """Layers that have moved to a larger place stay there."""
    pool = KvPool(_SHAPE, max_tokens=400, first_tokens=32)
    cache, noise = _filled(pool, 20, 0)
    _fill_the_device_once(pool, monkeypatch)
    with pytest.raises(torch.OutOfMemoryError):
        pool.open(300)
    assert pool.open(40).capacity == 40
    assert _holds(cache, noise)
