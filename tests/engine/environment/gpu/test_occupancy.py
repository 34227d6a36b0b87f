from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from engine.environment.check import CheckStatus
from engine.environment.gpu.occupancy import judge_memory_in_use, read_own_bytes
from engine.telemetry.nvml import GpuHealth, GpuProcess, HealthInventory

GB = 10**9


def health(used_gb: float, *processes: GpuProcess) -> HealthInventory:
    gpu = GpuHealth(
        0, "GPU-a", memory_used_bytes=int(used_gb * GB), memory_total_bytes=80 * GB, processes=processes or None
    )
    return HealthInventory((gpu,))


def test_an_empty_card_passes() -> None:
    finding = judge_memory_in_use(health(0.5), {}, 1)
    assert (finding.status, finding.observed) == (CheckStatus.PASS, "0.5 GB held by others, 79.5 GB of 80.0 GB free")


def test_others_are_named_with_what_they_hold() -> None:
    processes = (GpuProcess(77, "/usr/bin/python3", 30 * GB), GpuProcess(78, None, None))
    finding = judge_memory_in_use(health(31, *processes), {}, 1)
    assert finding.status is CheckStatus.WARN
    assert "process 77 (/usr/bin/python3) 30.0 GB" in finding.observed
    assert "process 78 (name not told) an amount not told" in finding.observed
    assert "`ps -fp 77,78`, then `kill 77 78`" in (finding.remedy or "")


def test_this_processs_own_memory_is_not_others() -> None:
    own = GpuProcess(1, "python", 30 * GB)
    assert judge_memory_in_use(health(31, own), {}, 1).status is CheckStatus.PASS
    assert judge_memory_in_use(health(31), {"GPU-a": 30 * GB}, 1).status is CheckStatus.PASS
    assert judge_memory_in_use(health(61, own), {}, 1).status is CheckStatus.WARN


def test_unlisted_processes_point_to_the_host() -> None:
    finding = judge_memory_in_use(health(31), {}, 1)
    assert "by whom is not told" in finding.observed
    assert "nvidia-smi" in (finding.remedy or "")


def test_memory_that_is_not_told_skips() -> None:
    assert judge_memory_in_use(HealthInventory((GpuHealth(0),)), {}, 1).status is CheckStatus.SKIP


class PlayedCuda:
    """torch.cuda, for one GPU."""

    def __init__(self, is_initialized: bool) -> None:
        self._is_initialized = is_initialized

    def is_initialized(self) -> bool:
        return self._is_initialized

    def device_count(self) -> int:
        return 1

    def get_device_properties(self, index: int) -> SimpleNamespace:
        return SimpleNamespace(uuid="a")

    def memory_reserved(self, index: int) -> int:
        return 3 * GB


@pytest.mark.parametrize(("is_initialized", "own"), [(True, {"GPU-a": 3 * GB}), (False, {})])
def test_what_torch_has_reserved_here_is_found(
    monkeypatch: pytest.MonkeyPatch, is_initialized: bool, own: dict[str, int]
) -> None:
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=PlayedCuda(is_initialized)))
    assert read_own_bytes() == own


def test_without_torch_there_is_nothing_to_find(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    assert read_own_bytes() == {}
