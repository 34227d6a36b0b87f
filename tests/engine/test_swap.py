"""Swaps, seen from the engine: on fakes, whose every step a test decides, and on real tiny models under load."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.config import Settings
from engine.engine import Engine
from engine.errors import (
    ConsoleError,
    InstanceExistsError,
    InstanceNotFoundError,
    InstanceNotReadyError,
    WeightsError,
)
from engine.inference.request import Delta, Finished, FinishReason, Message, Request, SamplingParams
from engine.instance import Instance, InstanceInfo, InstanceState, Role
from engine.latency.record import RequestRecord
from engine.models.spec import ModelSpec
from tests.fakes import FakeBackend, fake_spec, save_tiny_llama, wait_until

_HELLO = (Message("user", "Hello"),)


class Fakes:
    """One backend for each version, in the order they are loaded. Version n answers `vn`."""

    def __init__(self) -> None:
        self.backends = [FakeBackend(words=(f"v{number}",) * 3) for number in (1, 2, 3)]
        self._opened = iter(self.backends)

    def open(self) -> FakeBackend:
        return next(self._opened)

    def __getitem__(self, version: int) -> FakeBackend:
        return self.backends[version - 1]


@pytest.fixture
def fakes() -> Fakes:
    return Fakes()


@pytest.fixture
def records() -> list[RequestRecord]:
    return []


@pytest.fixture
def engine(fakes: Fakes, records: list[RequestRecord], tmp_path: Path) -> Iterator[Engine]:
    """An engine with version 1 of the model `m` ready; each version has a backend of its own."""
    one = Engine(Settings(home=tmp_path), records.append, open_backend=fakes.open)
    one.load(fake_spec())
    wait_until(lambda: one.instances()[0].state is InstanceState.READY)
    yield one
    for backend in fakes.backends:
        backend.load_gate.set()
        backend.gate.set()
    one.close()


def _versions(engine: Engine) -> list[tuple[int, Role, InstanceState]]:
    return [(info.version, info.role, info.state) for info in engine.instances()]


def _ask(engine: Engine) -> str:
    return "".join(event.text for event in engine.stream(Request("m", _HELLO)) if isinstance(event, Delta))


def _await_only(engine: Engine, version: int) -> None:
    wait_until(lambda: _versions(engine) == [(version, Role.SERVING, InstanceState.READY)])


def _begin(engine: Engine, fakes: Fakes, version: int = 2) -> None:
    """Begin a swap and have it stand in the middle of loading."""
    fakes[version].load_gate.clear()
    engine.swap("m", fake_spec("ignored"))
    wait_until(lambda: fakes[version].num_loads == 1)


def test_a_swap_from_start_to_end(engine: Engine, fakes: Fakes) -> None:
    _begin(engine, fakes)
    assert _versions(engine) == [
        (1, Role.SERVING, InstanceState.READY),
        (2, Role.NEXT, InstanceState.LOADING),
    ]
    assert engine.instances()[1].progress == 0.5
    assert {info.name for info in engine.instances()} == {"m"}
    assert [info.version for info in engine.serving()] == [1]
    assert _ask(engine) == "v1v1v1"
    fakes[2].load_gate.set()
    _await_only(engine, 2)
    assert _ask(engine) == "v2v2v2"
    assert engine.instances()[0].spec.name == "m"


def test_records_keep_the_name(engine: Engine, records: list[RequestRecord]) -> None:
    _ask(engine)
    engine.swap("m", fake_spec())
    _await_only(engine, 2)
    _ask(engine)
    wait_until(lambda: len(records) == 2)
    assert [record.model for record in records] == ["m", "m"]


def test_requests_of_the_old_version_end_while_the_new_one_answers(engine: Engine, fakes: Fakes) -> None:
    fakes[1].gate.clear()
    old = engine.stream(Request("m", _HELLO))
    engine.swap("m", fake_spec())
    wait_until(lambda: engine.serving()[0].version == 2)
    assert _versions(engine) == [
        (2, Role.SERVING, InstanceState.READY),
        (1, Role.LEAVING, InstanceState.DRAINING),
    ]
    assert _ask(engine) == "v2v2v2"
    assert [info.request_id for info in engine.requests()] == [old.request_id]
    fakes[1].gate.set()
    assert "".join(event.text for event in old if isinstance(event, Delta)) == "v1v1v1"
    _await_only(engine, 2)


def test_draining_is_bounded(engine: Engine, fakes: Fakes) -> None:
    fakes[1].gate.clear()
    old = engine.stream(Request("m", _HELLO))
    engine.swap("m", fake_spec(), drain_s=0.1)
    _await_only(engine, 2)
    assert old.finished is not None
    assert old.finished.reason is FinishReason.CANCELLED


def test_a_request_of_the_old_version_can_be_cancelled(engine: Engine, fakes: Fakes) -> None:
    fakes[1].gate.clear()
    old = engine.stream(Request("m", _HELLO))
    engine.swap("m", fake_spec())
    wait_until(lambda: engine.serving()[0].version == 2)
    assert engine.cancel(old.request_id)
    _await_only(engine, 2)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda fake: setattr(fake, "load_error", WeightsError("cut short")), "cut short"),
        (lambda fake: setattr(fake, "load_error", MemoryError()), "there was not enough memory"),
        (lambda fake: setattr(fake, "warm_up_error", ValueError("no token")), "the warm-up failed: ValueError"),
        (lambda fake: setattr(fake, "warm_up_error", WeightsError("no room")), "no room"),
    ],
    ids=["load", "memory", "warm-up", "start"],
)
def test_a_new_version_that_fails_leaves_the_old_one_serving(
    engine: Engine, fakes: Fakes, spoil: Callable[[FakeBackend], None], reason: str
) -> None:
    spoil(fakes[2])
    engine.swap("m", fake_spec())
    failed = [(1, Role.SERVING, InstanceState.READY), (2, Role.NEXT, InstanceState.FAILED)]
    wait_until(lambda: _versions(engine) == failed and engine.instances()[1].retry_at_s is None)
    assert reason in (engine.instances()[1].reason or "")
    assert _ask(engine) == "v1v1v1"
    engine.swap("m", fake_spec())
    _await_only(engine, 3)


def test_a_version_seen_to_have_failed_is_in_nobodys_way(
    engine: Engine, fakes: Fakes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The swap's thread may come to note the failure long after it can be seen."""
    may_note = threading.Event()
    wait_settled = Instance.wait_settled

    def wait_longer(instance: Instance) -> None:
        wait_settled(instance)
        if instance.version == 2:
            assert may_note.wait(10)

    monkeypatch.setattr(Instance, "wait_settled", wait_longer)
    fakes[2].load_error = MemoryError()
    engine.swap("m", fake_spec())
    wait_until(lambda: _versions(engine)[-1] == (2, Role.NEXT, InstanceState.FAILED))
    fakes[1].gate.clear()
    old = engine.stream(Request("m", _HELLO))
    engine.swap("m", fake_spec())
    wait_until(lambda: engine.serving()[0].version == 3)
    may_note.set()
    fakes[1].gate.set()
    assert "".join(event.text for event in old if isinstance(event, Delta)) == "v1v1v1"
    _await_only(engine, 3)


def test_a_version_that_gets_ready_between_two_looks_is_none_that_failed(
    engine: Engine, fakes: Fakes, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen_at = Instance.is_ready.fget  # type: ignore[attr-defined]
    looks: list[bool] = []

    def look(instance: Instance) -> bool:
        """A moment too early, the first time that it is ready."""
        is_ready = seen_at(instance)
        if instance.version == 2 and is_ready:
            looks.append(is_ready)
        return is_ready and (instance.version != 2 or len(looks) > 1)

    monkeypatch.setattr(Instance, "is_ready", property(look))
    engine.swap("m", fake_spec())
    _await_only(engine, 2)
    assert _ask(engine) == "v2v2v2"


def test_a_failed_swap_can_be_forgotten(engine: Engine, fakes: Fakes) -> None:
    fakes[2].load_error = WeightsError("cut short")
    engine.swap("m", fake_spec())
    wait_until(lambda: len(_versions(engine)) == 2 and engine.instances()[1].state is InstanceState.FAILED)
    assert engine.cancel_swap("m")
    _await_only(engine, 1)
    assert not engine.cancel_swap("m")


def test_a_swap_can_be_cancelled_while_it_loads(engine: Engine, fakes: Fakes) -> None:
    _begin(engine, fakes)
    assert engine.cancel_swap("m")
    _await_only(engine, 1)
    assert fakes[2].num_starts == 0
    engine.swap("m", fake_spec())
    _await_only(engine, 3)


def test_a_swap_that_is_through_is_not_cancelled(engine: Engine, fakes: Fakes) -> None:
    fakes[1].gate.clear()
    engine.stream(Request("m", _HELLO))
    engine.swap("m", fake_spec())
    wait_until(lambda: engine.serving()[0].version == 2)
    assert not engine.cancel_swap("m")
    assert engine.serving()[0].version == 2


def test_one_swap_at_a_time(engine: Engine, fakes: Fakes) -> None:
    _begin(engine, fakes)
    with pytest.raises(InstanceExistsError, match="version 2 of 'm' is loading already: wait for it, or cancel"):
        engine.swap("m", fake_spec())
    fakes[1].gate.clear()
    engine.stream(Request("m", _HELLO))
    fakes[2].load_gate.set()
    wait_until(lambda: engine.serving()[0].version == 2)
    with pytest.raises(InstanceExistsError, match="version 1 of 'm' is still leaving: wait until it is gone"):
        engine.swap("m", fake_spec())
    with pytest.raises(InstanceExistsError, match="'m' is ready already"):
        engine.load(fake_spec())


def test_what_cannot_be_swapped(engine: Engine) -> None:
    with pytest.raises(InstanceNotFoundError, match="no model named 'n'"):
        engine.swap("n", fake_spec())
    with pytest.raises(InstanceNotFoundError, match="no model named 'n'"):
        engine.cancel_swap("n")
    with pytest.raises(WeightsError, match="neither a folder nor a file"):
        engine.swap("m", ModelSpec("/nowhere"))
    assert _versions(engine) == [(1, Role.SERVING, InstanceState.READY)]


def test_unload_during_a_swap_ends_both(engine: Engine, fakes: Fakes) -> None:
    _begin(engine, fakes)
    engine.unload("m", 0)
    assert engine.instances() == ()
    assert not [
        thread.name
        for thread in threading.enumerate()
        if thread.name.startswith(("supervisor:m", "worker:m", "swap:m"))
    ]


def test_unload_during_draining_ends_both(engine: Engine, fakes: Fakes) -> None:
    fakes[1].gate.clear()
    old = engine.stream(Request("m", _HELLO))
    engine.swap("m", fake_spec())
    wait_until(lambda: engine.serving()[0].version == 2)
    engine.unload("m", 0)
    assert engine.instances() == ()
    assert old.finished is not None


def test_no_swap_while_the_name_is_unloaded(engine: Engine, fakes: Fakes) -> None:
    fakes[1].gate.clear()
    engine.stream(Request("m", _HELLO))
    unloading = threading.Thread(target=engine.unload, args=("m", 30.0))
    unloading.start()
    wait_until(lambda: engine.instances()[0].state is InstanceState.DRAINING)
    with pytest.raises(InstanceNotReadyError, match="m is being unloaded"):
        engine.swap("m", fake_spec())
    fakes[1].gate.set()
    unloading.join(10)
    assert engine.instances() == ()


def test_the_old_worker_dies_and_restarts_during_a_swap(
    engine: Engine, fakes: Fakes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.instance.instance._FIRST_PAUSE_S", 0.02)
    _begin(engine, fakes)
    fakes[1].errors.append(RuntimeError("device-side assert"))
    wait_until(lambda: engine.instances()[0].num_restarts == 1 and engine.instances()[0].state is InstanceState.READY)
    assert _ask(engine) == "v1v1v1"
    fakes[2].load_gate.set()
    _await_only(engine, 2)
    assert _ask(engine) == "v2v2v2"


def test_an_old_version_that_is_down_is_replaced(engine: Engine, fakes: Fakes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.instance.instance._FIRST_PAUSE_S", 60.0)
    fakes[1].errors.append(RuntimeError("device-side assert"))
    wait_until(lambda: engine.instances()[0].state is InstanceState.FAILED)
    engine.swap("m", fake_spec())
    _await_only(engine, 2)


def test_a_worker_that_dies_while_draining_does_not_come_back(engine: Engine, fakes: Fakes) -> None:
    fakes[1].gate.clear()
    old = engine.stream(Request("m", _HELLO))
    engine.swap("m", fake_spec())
    wait_until(lambda: engine.serving()[0].version == 2)
    fakes[1].errors.append(RuntimeError("device-side assert"))
    _await_only(engine, 2)
    assert old.finished is not None
    assert old.finished.reason is FinishReason.ERROR
    assert fakes[1].num_starts == 1


def test_close_during_a_swap(engine: Engine, fakes: Fakes) -> None:
    _begin(engine, fakes)
    engine.close()
    assert not [
        thread.name
        for thread in threading.enumerate()
        if thread.name.startswith(("supervisor:m", "worker:m", "swap:m"))
    ]


def test_last_use(engine: Engine) -> None:
    assert engine.instances()[0].last_used_s is None
    before_s = time.time()
    _ask(engine)
    used_s = engine.instances()[0].last_used_s
    assert used_s is not None
    assert before_s <= used_s <= time.time()


# -- real models --


class Clients:
    """Threads that ask one short question after another until they are told to stop."""

    def __init__(self, engine: Engine, count: int, name: str = "tiny") -> None:
        self.texts: Counter[str] = Counter()
        self.failures: list[str] = []
        self.readings: list[tuple[InstanceInfo, ...]] = []
        self._engine = engine
        self._name = name
        self._is_over = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._ask, daemon=True) for _ in range(count)]
        self._threads.append(threading.Thread(target=self._watch, daemon=True))

    def __enter__(self) -> Clients:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join(30)

    def _ask(self) -> None:
        while not self._is_over.is_set():
            try:
                text, last = answer(self._engine, self._name)
            except ConsoleError as error:
                self._note(None, f"{type(error).__name__}: {error}")
                continue
            is_good = last.reason in (FinishReason.STOP, FinishReason.LENGTH)
            self._note(text if is_good else None, None if is_good else f"{last.reason}: {last.error}")

    def _note(self, text: str | None, failure: str | None) -> None:
        with self._lock:
            if text is not None:
                self.texts[text] += 1
            if failure is not None:
                self.failures.append(failure)

    def _watch(self) -> None:
        while not self._is_over.wait(0.001):
            self.readings.append(tuple(info for info in self._engine.instances() if info.name == self._name))


def answer(engine: Engine, name: str) -> tuple[str, Finished]:
    params = SamplingParams(temperature=0.0, max_tokens=24)
    *events, last = engine.stream(Request(name, _HELLO, params))
    assert isinstance(last, Finished)
    return "".join(event.text for event in events if isinstance(event, Delta)), last


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two models that give different answers."""
    place = tmp_path_factory.mktemp("versions")
    return [save_tiny_llama(place / f"v{seed}", seed=seed) for seed in (1, 2)]


@pytest.fixture(scope="module")
def expected(folders: list[Path], tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What each of them answers when it is alone."""
    engine = _open_real(tmp_path_factory.mktemp("home"))
    try:
        for number, folder in enumerate(folders):
            engine.load(ModelSpec(str(folder), f"alone{number}", device="cpu"))
        wait_until(lambda: all(info.state is InstanceState.READY for info in engine.instances()), 60)
        texts = [answer(engine, f"alone{number}")[0] for number in range(len(folders))]
    finally:
        engine.close()
    assert texts[0] != texts[1]
    return texts


def _open_real(home: Path) -> Engine:
    return Engine(Settings(home=home, device="cpu", kv_cache_gib=0.05, max_running=4), lambda _record: None)


@pytest.fixture
def real(folders: list[Path], tmp_path: Path) -> Iterator[Engine]:
    """An engine with the first model ready as `tiny`."""
    engine = _open_real(tmp_path)
    engine.load(ModelSpec(str(folders[0]), "tiny", device="cpu"))
    wait_until(lambda: engine.instances()[0].state is InstanceState.READY, 60)
    yield engine
    engine.close()


def _spec(folder: Path) -> ModelSpec:
    return ModelSpec(str(folder), device="cpu")


def _await_version(engine: Engine, version: int) -> None:
    wait_until(lambda: [(info.version, info.state) for info in engine.instances()] == [(version, "ready")], 60)


def test_no_request_fails_through_swaps_under_load(real: Engine, folders: list[Path], expected: list[str]) -> None:
    with Clients(real, 6) as clients:
        for version, folder in ((2, folders[1]), (3, folders[0]), (4, folders[1])):
            real.swap("tiny", _spec(folder))
            _await_version(real, version)
            before = sum(clients.texts.values())
            wait_until(lambda before=before: sum(clients.texts.values()) > before + 12, 30)  # type: ignore[misc]
    assert clients.failures == []
    assert set(clients.texts) == set(expected)
    for reading in clients.readings:
        assert sum(info.role is Role.SERVING for info in reading) == 1
        assert sum(info.state is InstanceState.READY for info in reading) == 1


def _make_broken(folders: list[Path], tmp_path: Path) -> Path:
    broken = save_tiny_llama(tmp_path / "broken", seed=3)
    file = broken / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    return broken


def test_a_broken_next_version_disturbs_nobody(
    real: Engine, folders: list[Path], expected: list[str], tmp_path: Path
) -> None:
    broken = _make_broken(folders, tmp_path)
    with Clients(real, 4) as clients:
        real.swap("tiny", _spec(broken))
        wait_until(lambda: real.instances()[-1].state is InstanceState.FAILED, 60)
        assert "cut short" in (real.instances()[-1].reason or "")
    assert clients.failures == []
    assert set(clients.texts) == {expected[0]}


def _break_folder(engine: Engine, broken: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine.load(ModelSpec(str(broken), "other", device="cpu"))


def _run_out_of_memory(engine: Engine, broken: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise MemoryError

    monkeypatch.setattr("engine.backend.load_model", refuse)
    engine.load(ModelSpec(str(broken), "other", device="cpu"))


@pytest.mark.parametrize(
    ("fail", "words"),
    [(_break_folder, "cut short"), (_run_out_of_memory, "not enough memory")],
    ids=["files", "memory"],
)
def test_a_load_that_fails_disturbs_nobody(
    real: Engine,
    folders: list[Path],
    expected: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fail: Callable[[Engine, Path, pytest.MonkeyPatch], None],
    words: str,
) -> None:
    broken = _make_broken(folders, tmp_path)
    with Clients(real, 4) as clients:
        fail(real, broken, monkeypatch)
        wait_until(lambda: any(info.state is InstanceState.FAILED for info in real.instances()), 60)
    failed = next(info for info in real.instances() if info.name == "other")
    assert words in (failed.reason or "")
    assert clients.failures == []
    assert set(clients.texts) == {expected[0]}
    assert next(info for info in real.instances() if info.name == "tiny").num_restarts == 0
