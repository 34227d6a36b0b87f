from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

import pytest

from engine.clock import SystemClock
from engine.errors import WeightsError
from engine.instance import Instance, InstanceState
from engine.instance.memory import MemoryWatch
from engine.models.budget import Budget
from engine.models.comparison import Comparison
from engine.models.footprint import footprint_of
from engine.models.headers import tensor_info
from engine.models.plan import MemoryPlan, plan_memory
from engine.models.run_lines import RUNTIME_BYTES
from engine.models.spec import ModelSpec
from tests.fakes import FakeBackend, FakeLoaded, wait_until

_SPEC = ModelSpec("m", "m", device="cpu")
_LOADED: Any = FakeLoaded("m")
_RUNNER: Any = None
_CONFIG = {
    "model_type": "llama",
    "hidden_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "intermediate_size": 96,
    "vocab_size": 10,
    "max_position_embeddings": 128,
}


def _plan(spec: ModelSpec) -> MemoryPlan:
    """Of 1,000 numbers, which is what the fake backend holds."""
    footprint = footprint_of(_CONFIG, [tensor_info("model.norm.weight", "F32", (1_000,))])
    return plan_memory(footprint, spec, Budget("cpu", 1 << 40, "a test's"))


def _watch(
    plan: Callable[[ModelSpec], MemoryPlan] | None = _plan,
    witness: Callable[[], object] = lambda: 0,
    lock: threading.Lock | None = None,
) -> MemoryWatch:
    return MemoryWatch(plan, witness, lock or threading.Lock())


def test_planned_beside_measured() -> None:
    watch, backend = _watch(), FakeBackend()
    watch.mark(backend, _SPEC)
    reading = watch.read(backend, _LOADED, _RUNNER, _SPEC)
    assert reading is not None
    assert reading.untold == ()
    assert reading.rows == (
        Comparison("weights", 4_000, 4_000),
        Comparison("the process", 4_000 + RUNTIME_BYTES, 4_000),
    )


def test_growth_is_not_told_where_others_did_something_meanwhile() -> None:
    seen, backend = iter([0, 1, 1]), FakeBackend()
    watch = _watch(witness=lambda: next(seen))
    watch.mark(backend, _SPEC)
    reading = watch.read(backend, _LOADED, _RUNNER, _SPEC)
    assert reading is not None
    assert reading.measured.process_bytes is None
    assert [row.what for row in reading.rows] == ["weights"]
    assert "other models were loaded" in reading.untold[0]


def test_growth_is_not_told_while_another_one_loads() -> None:
    lock, backend = threading.Lock(), FakeBackend()
    watch = _watch(lock=lock)
    watch.mark(backend, _SPEC)
    with lock:
        reading = watch.read(backend, _LOADED, _RUNNER, _SPEC)
    assert reading is not None
    assert reading.measured.process_bytes is None
    assert not lock.locked()


def test_without_a_plan_what_was_measured_is_told() -> None:
    def refuse(_spec: ModelSpec) -> MemoryPlan:
        raise WeightsError("its headers cannot be read")

    for plan, reason in ((None, "makes no plans"), (refuse, "its headers cannot be read")):
        watch, backend = _watch(plan), FakeBackend()
        watch.mark(backend, _SPEC)
        reading = watch.read(backend, _LOADED, _RUNNER, _SPEC)
        assert reading is not None
        assert (reading.measured.process_bytes, reading.rows) == (4_000, ())
        assert reason in reading.untold[0]


def test_a_reading_that_fails_is_logged_and_no_more(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("no such counter")

    watch, backend = _watch(), FakeBackend()
    watch.mark(backend, _SPEC)
    monkeypatch.setattr(backend, "measure", fail)
    assert watch.read(backend, _LOADED, _RUNNER, _SPEC) is None
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert "no such counter" in caplog.text


def test_an_instance_keeps_its_reading_through_restarts() -> None:
    backend, lock = FakeBackend(), threading.Lock()
    arguments: list[Any] = ["m", _SPEC, lambda: backend, SystemClock(), lock, lambda *_: None]
    instance = Instance(*arguments, memory_watch=_watch(lock=lock))
    assert instance.info().memory is None
    instance.start()
    wait_until(lambda: instance.info().state is InstanceState.READY)
    first = instance.info().memory
    backend.errors.append(RuntimeError("device-side assert"))
    wait_until(lambda: instance.info().state is InstanceState.READY and instance.info().num_restarts == 1)
    assert first is not None
    assert instance.info().memory is first
    instance.stop()
