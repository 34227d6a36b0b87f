"""Room for the next model, made by an engine on fakes and a plan that a test decides."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from engine.config import Settings
from engine.engine import Engine
from engine.inference.request import Message, Request
from engine.instance import InstanceInfo, InstanceState, Role
from engine.models.spec import ModelSpec
from engine.room import residents_of
from engine.scheduling.unloading import Room
from tests.fakes import FAKE_INFO, FakeBackend, fake_spec, wait_until

_HELD_BYTES = FAKE_INFO.weights_bytes


class Plan:
    """A machine of `total_bytes` on which every model takes as much as the fake says of itself."""

    def __init__(self, total_bytes: int) -> None:
        self.total_bytes = total_bytes
        self.needed_bytes = _HELD_BYTES
        self.asked: list[str | None] = []
        self.engine: Engine | None = None

    def __call__(self, spec: ModelSpec) -> Room | None:
        self.asked.append(spec.name)
        assert self.engine is not None
        held = sum(info.model is not None for info in self.engine.instances()) * _HELD_BYTES
        return Room("cpu", self.needed_bytes, self.total_bytes - held)


@pytest.fixture
def backend() -> FakeBackend:
    return FakeBackend()


@pytest.fixture
def plan() -> Plan:
    """Room for two."""
    return Plan(2 * _HELD_BYTES)


@pytest.fixture
def engine(backend: FakeBackend, plan: Plan, tmp_path: Path) -> Iterator[Engine]:
    """An engine with the models `a` and `b` ready, of which `a` was loaded first."""
    one = Engine(Settings(home=tmp_path), lambda _record: None, None, lambda: backend, unload_idle=True, fits=plan)
    plan.engine = one
    for name in ("a", "b"):
        one.load(fake_spec(name))
        _await(one, name)
    yield one
    backend.gate.set()
    one.close()


def _await(engine: Engine, name: str, state: InstanceState = InstanceState.READY) -> None:
    wait_until(lambda: any(info.name == name and info.state is state for info in engine.instances()))


def _names(engine: Engine) -> list[str]:
    return [info.name for info in engine.instances()]


def _ask(engine: Engine, name: str) -> None:
    list(engine.stream(Request(name, (Message("user", "Hello"),))))


def test_the_least_recently_used_makes_room(engine: Engine, plan: Plan) -> None:
    _ask(engine, "b")
    _ask(engine, "a")
    engine.load(fake_spec("c"))
    _await(engine, "c")
    assert _names(engine) == ["a", "c"]
    assert plan.asked[-2:] == ["c", "c"]


def test_who_was_unloaded_is_told_with_when_and_for_whom(engine: Engine) -> None:
    assert engine.unloaded() == ()
    began_s = time.time()
    engine.load(fake_spec("c"))
    _await(engine, "c")
    (gone,) = engine.unloaded()
    assert (gone.name, gone.made_room_for, gone.spec, gone.held_bytes) == ("a", "c", fake_spec("a"), _HELD_BYTES)
    assert began_s <= gone.at_s <= time.time()
    assert gone.idle_s >= 0
    engine.load(gone.spec)
    _await(engine, "a")
    assert [(item.name, item.made_room_for) for item in engine.unloaded()] == [("b", "a"), ("a", "c")]


def test_one_that_was_never_used_counts_from_when_it_became_ready(engine: Engine) -> None:
    engine.load(fake_spec("c"))
    _await(engine, "c")
    assert _names(engine) == ["b", "c"]


def test_one_in_use_is_not_unloaded(engine: Engine, backend: FakeBackend) -> None:
    backend.gate.clear()
    stream = engine.stream(Request("a", (Message("user", "Hello"),)))
    engine.load(fake_spec("c"))
    _await(engine, "c")
    assert _names(engine) == ["a", "c"]
    assert stream.finished is None


def test_a_pinned_one_is_not_unloaded(engine: Engine) -> None:
    engine.pin("a", True)
    assert engine.instances()[0].is_pinned
    engine.load(fake_spec("c"))
    _await(engine, "c")
    assert _names(engine) == ["a", "c"]


def test_pinned_from_the_start(engine: Engine) -> None:
    engine.unload("a")
    engine.unload("b")
    for name in ("p", "q"):
        engine.load(fake_spec(name), is_pinned=True)
        _await(engine, name)
    engine.load(fake_spec("c"))
    _await(engine, "c", InstanceState.FAILED)
    reason = engine.instances()[-1].reason or ""
    assert "0.00 GB are free, also after unloading idle models" in reason
    assert "p stays: it is pinned; q stays: it is pinned" in reason
    assert _names(engine) == ["p", "q", "c"]


def test_what_can_never_fit_takes_nobody_away(engine: Engine, plan: Plan) -> None:
    plan.needed_bytes = 10 * _HELD_BYTES
    engine.load(fake_spec("c"))
    _await(engine, "c", InstanceState.FAILED)
    assert "a stays: unloading it would not be enough" in (engine.instances()[-1].reason or "")
    assert [info.state for info in engine.serving()[:2]] == [InstanceState.READY] * 2


def test_a_swap_unloads_others_but_not_its_own_old_version(engine: Engine) -> None:
    engine.swap("a", fake_spec())
    wait_until(lambda: any(info.version == 2 and info.role is Role.SERVING for info in engine.instances()))
    wait_until(lambda: _names(engine) == ["a"])


@pytest.mark.parametrize("change", [{"unload_idle": False}, {"fits": None}, {"fits": lambda _spec: None}])
def test_nobody_is_unloaded_without_the_setting_or_a_plan(
    change: dict[str, object], plan: Plan, backend: FakeBackend, tmp_path: Path
) -> None:
    arguments: dict[str, object] = {"unload_idle": True, "fits": plan, **change}
    plan.total_bytes = _HELD_BYTES
    build: Callable[..., Engine] = Engine
    engine = build(Settings(home=tmp_path), lambda _record: None, None, lambda: backend, **arguments)
    plan.engine = engine
    for name in ("a", "b"):
        engine.load(fake_spec(name))
        _await(engine, name)
    assert _names(engine) == ["a", "b"]
    engine.close()


def test_only_what_is_loaded_on_that_device_counts() -> None:
    here = InstanceInfo(
        "a", ModelSpec("a"), InstanceState.READY, None, None, None, 5.0, 0, None, FAKE_INFO, None, last_used_s=7.0
    )
    elsewhere = replace(here, name="b", model=replace(FAKE_INFO, device="cuda:0"))
    coming = replace(here, name="c", model=None, state=InstanceState.LOADING)
    infos = [here, elsewhere, coming]
    assert [(one.name, one.last_used_s, one.why_not) for one in residents_of(infos, "cpu", "c")] == [("a", 7.0, None)]
    assert [one.name for one in residents_of(infos, "cuda:0", "c")] == ["b"]


def test_one_that_is_not_steady_stays() -> None:
    info = InstanceInfo("a", ModelSpec("a"), InstanceState.WARMING, None, None, None, 5.0, 1, None, FAKE_INFO, None)
    assert residents_of([info], "cpu", "c")[0].why_not == "it is warming"
    following = replace(info, state=InstanceState.LOADING, role=Role.NEXT, model=None)
    assert residents_of([info, following], "cpu", "c")[0].why_not == "a next version of it is loading"
