from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from engine.clock import SystemClock
from engine.errors import InstanceNotReadyError, WeightsError, WorkerDiedError
from engine.inference.embedding import EmbeddingJob, EmbeddingRequest
from engine.inference.request import Delta, Finished, FinishReason, Message, Request, Timing
from engine.inference.tokens import TokenizeRequest
from engine.instance import Instance, InstanceState
from engine.instance.status import Standing, Status
from engine.instance.worker import Worker
from engine.models.spec import ModelSpec
from tests.fakes import FakeBackend, wait_until

Opener = Callable[[], Instance]

_REQUEST = Request("m", (Message("user", "Where is Paris?"),))


class Life:
    """Every state an instance went through, with its reason."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.infos: list[Standing] = []
        enter = Status.enter

        def remember(status: Status, *arguments: Any) -> None:
            enter(status, *arguments)
            self.infos.append(status.read())

        monkeypatch.setattr(Status, "enter", remember)

    @property
    def states(self) -> list[str]:
        return [standing.state.value for standing in self.infos]


@pytest.fixture
def backend() -> FakeBackend:
    return FakeBackend()


@pytest.fixture
def life(monkeypatch: pytest.MonkeyPatch) -> Life:
    return Life(monkeypatch)


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.instance.instance._FIRST_PAUSE_S", 0.02)
    monkeypatch.setattr("engine.instance.instance._LONGEST_PAUSE_S", 0.05)


@pytest.fixture
def ended() -> list[Finished]:
    return []


@pytest.fixture
def instance(backend: FakeBackend, ended: list[Finished]) -> Iterator[Instance]:
    one = Instance(
        "m",
        ModelSpec("m"),
        lambda: backend,
        SystemClock(),
        threading.Lock(),
        lambda _sequence, finished: ended.append(finished),
    )
    yield one
    backend.load_gate.set()
    one.stop()


def _state(instance: Instance) -> InstanceState:
    return instance.info().state


def _start(instance: Instance) -> Instance:
    instance.start()
    wait_until(lambda: _state(instance) is InstanceState.READY)
    return instance


def _submit(instance: Instance, request: Request | None = None) -> Any:
    request = request or Request("m", _REQUEST.messages)
    clock = SystemClock()
    return instance.submit(request, Timing(clock.wall(), clock.monotonic()))


def test_a_whole_life(instance: Instance, life: Life) -> None:
    assert _state(instance) is InstanceState.PENDING
    _start(instance).stop()
    assert life.states == ["loading", "warming", "ready", "draining", "stopped"]
    assert instance.info().reason is None
    assert instance.info().model is None


def test_only_ready_answers(instance: Instance, backend: FakeBackend) -> None:
    with pytest.raises(InstanceNotReadyError, match="m is pending; try again when it is ready"):
        _submit(instance)
    backend.load_gate.clear()
    instance.start()
    wait_until(lambda: instance.info().progress == 0.5)
    assert instance.info().stage == "loading weights"
    with pytest.raises(InstanceNotReadyError, match="m is loading"):
        _submit(instance)
    backend.load_gate.set()
    wait_until(lambda: _state(instance) is InstanceState.READY)
    text = "".join(event.text for event in _submit(instance).stream if isinstance(event, Delta))
    assert text == "The capital of France is Paris."
    instance.stop()
    with pytest.raises(InstanceNotReadyError, match="m is stopped"):
        _submit(instance)


def test_info_of_a_ready_one(instance: Instance) -> None:
    info = _start(instance).info()
    assert info.model is not None
    assert info.stats is not None
    assert (info.stage, info.progress, info.retry_at_s, info.num_restarts) == (None, None, None, 0)


def test_a_load_that_fails_says_why_and_stays(instance: Instance, backend: FakeBackend, life: Life) -> None:
    backend.load_error = WeightsError("the weights are missing")
    instance.start()
    wait_until(lambda: not instance._supervisor.is_alive())
    info = instance.info()
    assert (info.state, info.reason, info.retry_at_s) == (InstanceState.FAILED, "the weights are missing", None)
    assert life.states == ["loading", "failed"]
    with pytest.raises(InstanceNotReadyError, match="m is failed: the weights are missing"):
        _submit(instance)


def test_an_unforeseen_error_in_loading(
    instance: Instance, backend: FakeBackend, caplog: pytest.LogCaptureFixture
) -> None:
    backend.load_error = ZeroDivisionError("division by zero")
    instance.start()
    wait_until(lambda: _state(instance) is InstanceState.FAILED)
    assert instance.info().reason == "loading failed: ZeroDivisionError: division by zero"
    assert "ZeroDivisionError" in caplog.text


def test_unload_while_loading(instance: Instance, backend: FakeBackend, life: Life) -> None:
    backend.load_gate.clear()
    instance.start()
    wait_until(lambda: instance.info().stage == "loading weights")
    instance.stop()
    assert _state(instance) is InstanceState.STOPPED
    assert backend.num_starts == 0
    assert "ready" not in life.states


def test_a_warm_up_that_fails_is_tried_again(instance: Instance, backend: FakeBackend, life: Life) -> None:
    backend.warm_up_error = ValueError("no token")
    instance.start()
    wait_until(lambda: backend.num_starts >= 3)
    assert "the warm-up failed: ValueError: no token" in {info.reason for info in life.infos}
    assert "ready" not in life.states
    backend.warm_up_error = None
    wait_until(lambda: _state(instance) is InstanceState.READY)
    assert instance.info().num_restarts >= 2


def test_a_worker_that_raises_fails_its_requests_and_comes_back(
    instance: Instance, backend: FakeBackend, ended: list[Finished], life: Life
) -> None:
    _start(instance)
    backend.gate.clear()
    sequences = [_submit(instance) for _ in range(3)]
    backend.errors.append(RuntimeError("CUDA error: device-side assert"))
    for sequence in sequences:
        last = list(sequence.stream)[-1]
        assert isinstance(last, Finished)
        assert last.reason is FinishReason.ERROR
        assert last.error == (
            "the worker of m died (RuntimeError: CUDA error: device-side assert); it restarts, send the request again"
        )
    assert len(ended) == 3
    backend.gate.set()
    wait_until(lambda: _state(instance) is InstanceState.READY)
    assert list(_submit(instance).stream)[-1].reason is FinishReason.STOP
    assert instance.info().num_restarts == 1
    failed = next(info for info in life.infos if info.state is InstanceState.FAILED)
    assert failed.reason == "the worker died (RuntimeError: CUDA error: device-side assert)"
    assert failed.retry_at_s is not None
    assert backend.num_loads == 1


def test_a_worker_thread_that_just_ends(
    instance: Instance, backend: FakeBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Worker._work
    ends = threading.Event()

    def work(self: Worker) -> None:
        if ends.is_set():
            real(self)
        else:
            ends.wait(10)

    monkeypatch.setattr(Worker, "_work", work)
    _start(instance)
    sequence = _submit(instance)
    ends.set()
    last = list(sequence.stream)[-1]
    assert "the worker of m died (it ended without an error)" in last.error
    wait_until(lambda: instance.info().num_restarts == 1 and _state(instance) is InstanceState.READY)
    assert list(_submit(instance).stream)[-1].reason is FinishReason.STOP


@pytest.mark.parametrize("error", [SystemExit(1), KeyboardInterrupt(), MemoryError()])
def test_no_kind_of_error_goes_unnoticed(instance: Instance, backend: FakeBackend, error: BaseException) -> None:
    _start(instance)
    backend.errors.append(error)
    wait_until(lambda: instance.info().num_restarts == 1 and _state(instance) is InstanceState.READY)


def _record_pauses(instance: Instance, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long the supervisor wanted to pause; it does not."""
    pauses: list[float] = []
    real = instance._stopping.wait

    def wait(timeout: float | None = None) -> bool:
        pauses.append(timeout or 0.0)
        return real(0.0)

    monkeypatch.setattr(instance._stopping, "wait", wait)
    return pauses


def test_pauses_double_up_to_the_longest(
    instance: Instance, backend: FakeBackend, life: Life, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend.warm_up_error = ValueError("no token")
    pauses = _record_pauses(instance, monkeypatch)
    instance.start()
    wait_until(lambda: len(pauses) >= 4)
    instance.stop()
    assert pauses[:4] == [0.02, 0.04, 0.05, 0.05]


def test_a_steady_worker_starts_with_the_first_pause_again(
    instance: Instance, backend: FakeBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.instance.instance._STEADY_S", -1.0)
    backend.warm_up_error = ValueError("no token")
    pauses = _record_pauses(instance, monkeypatch)
    instance.start()
    wait_until(lambda: len(pauses) >= 3)
    instance.stop()
    assert pauses[:3] == [0.02, 0.02, 0.02]


def test_stop_during_a_pause_does_not_wait_for_its_end(
    instance: Instance, backend: FakeBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.instance.instance._FIRST_PAUSE_S", 60.0)
    backend.warm_up_error = ValueError("no token")
    instance.start()
    wait_until(lambda: instance.info().retry_at_s is not None)
    instance.stop()
    assert _state(instance) is InstanceState.STOPPED


def test_draining_lets_requests_end(instance: Instance, backend: FakeBackend) -> None:
    _start(instance)
    backend.gate.clear()
    sequence = _submit(instance)
    stopper = threading.Thread(target=instance.stop, args=(30.0,))
    stopper.start()
    wait_until(lambda: _state(instance) is InstanceState.DRAINING)
    with pytest.raises(InstanceNotReadyError, match="m is draining"):
        _submit(instance)
    backend.gate.set()
    stopper.join(10)
    assert sequence.stream.finished.reason is FinishReason.STOP
    assert _state(instance) is InstanceState.STOPPED


def test_stop_cancels_what_does_not_end(
    instance: Instance, backend: FakeBackend, ended: list[Finished], caplog: pytest.LogCaptureFixture
) -> None:
    _start(instance)
    backend.gate.clear()
    sequences = [_submit(instance) for _ in range(3)]
    instance.stop(0.01)
    assert {sequence.stream.finished.reason for sequence in sequences} == {FinishReason.CANCELLED}
    assert len(ended) == 3
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_cancel(instance: Instance, backend: FakeBackend) -> None:
    assert instance.cancel("req-unknown") is False
    _start(instance)
    backend.gate.clear()
    sequence = _submit(instance)
    assert instance.requests() == [sequence]
    assert instance.cancel(sequence.request_id) is True
    wait_until(lambda: instance.requests() == [])
    assert sequence.stream.finished.reason is FinishReason.CANCELLED


def test_a_finish_callback_that_raises_does_not_leave_a_dead_instance_ready(backend: FakeBackend) -> None:
    def refuse(_sequence: Any, _finished: Finished) -> None:
        raise OSError("the store is gone")

    instance = Instance("m", ModelSpec("m"), lambda: backend, SystemClock(), threading.Lock(), refuse)
    _start(instance)
    _submit(instance)
    wait_until(lambda: _state(instance) is not InstanceState.READY or instance.info().num_restarts > 0)
    instance.stop()
    assert _state(instance) is InstanceState.STOPPED


def test_loads_take_turns(backend: FakeBackend) -> None:
    lock, clock = threading.Lock(), SystemClock()
    other = FakeBackend()
    first = Instance("a", ModelSpec("a"), lambda: backend, clock, lock, lambda *_: None)
    second = Instance("b", ModelSpec("b"), lambda: other, clock, lock, lambda *_: None)
    backend.load_gate.clear()
    first.start()
    wait_until(lambda: _state(first) is InstanceState.LOADING)
    second.start()
    assert (_state(second), other.num_loads) == (InstanceState.PENDING, 0)
    backend.load_gate.set()
    wait_until(lambda: _state(first) is _state(second) is InstanceState.READY)
    first.stop()
    second.stop()


def test_an_instance_that_waits_for_its_turn_to_load_can_be_stopped(backend: FakeBackend) -> None:
    lock, clock = threading.Lock(), SystemClock()
    waiting = Instance("b", ModelSpec("b"), lambda: backend, clock, lock, lambda *_: None)
    with lock:
        waiting.start()
        waiting.stop()
    assert (_state(waiting), backend.num_loads) == (InstanceState.STOPPED, 0)


def test_a_start_that_can_never_work_is_not_tried_again(instance: Instance, backend: FakeBackend) -> None:
    backend.warm_up_error = WeightsError("0.1 GiB for KV caches hold 3 tokens")
    instance.start()
    wait_until(lambda: not instance._supervisor.is_alive())
    info = instance.info()
    assert (info.state, info.reason) == (InstanceState.FAILED, "0.1 GiB for KV caches hold 3 tokens")
    assert (info.retry_at_s, backend.num_starts) == (None, 1)


def test_stop_twice_and_before_the_start(instance: Instance) -> None:
    instance.stop()
    instance.stop()


def _embed(instance: Instance) -> EmbeddingJob:
    clock = SystemClock()
    return instance.embed(EmbeddingRequest("m", ("some text",)), Timing(clock.wall(), clock.monotonic()))


def test_texts_are_embedded(instance: Instance, ended: list[Finished]) -> None:
    with pytest.raises(InstanceNotReadyError, match="m is pending"):
        _embed(instance)
    assert _embed(_start(instance)).outcome.result(30).num_tokens == 9
    wait_until(lambda: len(ended) == 1)
    assert instance.requests() == []


def test_draining_lets_texts_be_embedded(instance: Instance, backend: FakeBackend) -> None:
    _start(instance)
    backend.gate.clear()
    job = _embed(instance)
    assert [request.request_id for request in instance.requests()] == [job.request_id]
    stopping = threading.Thread(target=instance.stop, args=(60.0,))
    stopping.start()
    wait_until(lambda: _state(instance) is InstanceState.DRAINING)
    backend.gate.set()
    assert job.outcome.result(30).num_tokens == 9
    stopping.join(30)
    assert _state(instance) is InstanceState.STOPPED


def test_stopping_cancels_texts(instance: Instance, backend: FakeBackend) -> None:
    _start(instance)
    backend.gate.clear()
    job = _embed(instance)
    instance.stop()
    with pytest.raises(InstanceNotReadyError, match="cancelled"):
        job.outcome.result(30)


def test_a_worker_that_dies_ends_texts(instance: Instance, backend: FakeBackend) -> None:
    _start(instance)
    backend.gate.clear()
    job = _embed(instance)
    backend.errors.append(RuntimeError("out of memory"))
    with pytest.raises(WorkerDiedError, match="out of memory"):
        job.outcome.result(30)


def test_tokens_there_and_back(instance: Instance) -> None:
    _start(instance)
    tokens = instance.tokenize(TokenizeRequest("m", "ab"))
    assert instance.detokenize(tokens.ids) == "ab"
