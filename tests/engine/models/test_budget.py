from __future__ import annotations

import importlib.metadata
import sys

import pytest

from engine.errors import WeightsError
from engine.models import budget
from engine.models.budget import Budget, read_budget
from engine.models.spec import ModelSpec
from engine.telemetry import GpuInventory, GpuReading, Nvml

_GIB = 1 << 30
_CARD = GpuReading(0, name="NVIDIA H100", memory_used_bytes=10 * _GIB, memory_total_bytes=80 * _GIB)


class _Cards(Nvml):
    """NVML with these cards."""

    def __init__(self, *cards: GpuReading) -> None:
        super().__init__()
        self._cards = cards

    def read(self) -> GpuInventory:
        return GpuInventory(self._cards, reason=None if self._cards else "No NVIDIA driver library is installed.")


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A host with 8 GiB free and a torch built for CUDA."""
    monkeypatch.setattr(budget, "free_host_bytes", lambda: 8 * _GIB)
    monkeypatch.setattr(importlib.metadata, "version", lambda _name: "2.13.0+cu130")
    return monkeypatch


def test_the_host_where_there_is_no_gpu() -> None:
    found = read_budget(ModelSpec(), _Cards())
    assert (found.device, found.free_bytes, found.chunk_tokens) == ("cpu", 8 * _GIB, 256)
    assert found.has_framework == ("transformers" in sys.modules)


def test_a_gpu_where_there_is_one() -> None:
    found = read_budget(ModelSpec(), _Cards(_CARD), chunk_tokens=512)
    assert (found.device, found.free_bytes, found.chunk_tokens) == ("cuda:0", 70 * _GIB, 512)
    assert "NVIDIA H100" in found.where
    assert read_budget(ModelSpec(device="cpu"), _Cards(_CARD)).device == "cpu"


def test_cuda_where_it_cannot_be(machine: pytest.MonkeyPatch) -> None:
    with pytest.raises(WeightsError, match="no GPU can be used: No NVIDIA driver library"):
        read_budget(ModelSpec(device="cuda"), _Cards())
    with pytest.raises(WeightsError, match="memory of GPU 0 cannot be read"):
        read_budget(ModelSpec(device="cuda"), _Cards(GpuReading(0)))
    machine.setattr(importlib.metadata, "version", lambda _name: "2.13.0+cpu")
    with pytest.raises(WeightsError, match="build without CUDA"):
        read_budget(ModelSpec(device="cuda"), _Cards(_CARD))
    assert read_budget(ModelSpec(), _Cards(_CARD)).device == "cpu"


def test_caches_get_a_share_or_what_was_asked() -> None:
    assert Budget("cpu", 0, "").cache_limit_bytes(8 * _GIB) == 2 * _GIB
    assert Budget("cuda:0", 0, "").cache_limit_bytes(100 * _GIB) == 85 * _GIB
    assert Budget("cpu", 0, "").cache_limit_bytes(-5) == 0
    assert Budget("cpu", 0, "", kv_cache_gib=1.5).cache_limit_bytes(0) == 3 * _GIB // 2
