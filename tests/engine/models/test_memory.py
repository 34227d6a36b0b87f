from __future__ import annotations

from types import SimpleNamespace

import psutil
import pytest
import torch

from engine.models import memory
from engine.models.memory import cache_budget_bytes, free_host_bytes

_CPU = torch.device("cpu")
_GIB = 1 << 30


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A host with 8 GiB available and no control group."""
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=8 * _GIB))
    monkeypatch.setattr(memory, "read_cgroup_memory", lambda: None)
    return monkeypatch


def test_what_was_asked_for_is_taken_as_it_is() -> None:
    assert cache_budget_bytes(_CPU, 1.5) == 3 * _GIB // 2


@pytest.mark.usefixtures("machine")
def test_a_quarter_of_the_free_host_memory() -> None:
    assert cache_budget_bytes(_CPU, None) == 2 * _GIB


def test_most_of_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _device: (100 * _GIB, 140 * _GIB))
    assert cache_budget_bytes(torch.device("cuda:0"), None) == 85 * _GIB


def test_a_control_group_may_leave_less(machine: pytest.MonkeyPatch) -> None:
    machine.setattr(memory, "read_cgroup_memory", lambda: SimpleNamespace(available_bytes=_GIB))
    assert free_host_bytes() == _GIB
    machine.setattr(memory, "read_cgroup_memory", lambda: SimpleNamespace(available_bytes=99 * _GIB))
    assert free_host_bytes() == 8 * _GIB
