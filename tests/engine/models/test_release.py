from __future__ import annotations

import gc
import subprocess
import sys
import weakref
from pathlib import Path

import pytest

from engine.models.release import leave_out_imports, release_memory, weights_apart

_MEASURED = Path(__file__).with_name("unloading.py")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_unloading_gives_the_memory_back() -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(_MEASURED)]
    run = subprocess.run(command, cwd=Path(__file__).parents[3], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout[-5_000:]


class _Node:
    """Something in a cycle."""

    def __init__(self) -> None:
        self.itself = self


def test_cycles_are_collected() -> None:
    gc.disable()
    try:
        gone = weakref.ref(_Node())
        assert gone() is not None
        release_memory()
        assert gone() is None
    finally:
        gc.enable()


def test_what_is_there_before_the_first_model_is_left_out_once() -> None:
    leave_out_imports.cache_clear()
    gc.unfreeze()
    leave_out_imports()
    num_left_out = gc.get_freeze_count()
    gone = weakref.ref(_Node())
    leave_out_imports()
    assert num_left_out > 10_000
    assert gc.get_freeze_count() <= num_left_out
    release_memory()
    assert gone() is None


def test_thresholds_are_set_back_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr("engine.models.release._set_thresholds", lambda *sizes: asked.append(sizes))
    with pytest.raises(ZeroDivisionError), weights_apart():
        raise ZeroDivisionError
    assert asked == [(128 * 2**10, 128 * 2**10), (32 * 2**20, 64 * 2**20)]
