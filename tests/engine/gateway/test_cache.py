"""One run for identical requests, and what is kept of it; over a fake engine."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from engine.clock import SystemClock
from engine.config import Settings
from engine.engine import Engine
from engine.errors import QueueFullError
from engine.gateway import CacheRules, Gateway, Routes, SharedStream
from engine.inference.request import Delta, FinishReason, Message, Request, SamplingParams
from engine.instance import InstanceState
from engine.latency.record import RequestRecord, Status
from engine.remote import Remotes
from engine.state.database import open_database
from engine.state.serving import ServingStore
from tests.fakes import FakeBackend, fake_spec, wait_until


@pytest.fixture
def cached(tmp_path: Path, backend: FakeBackend, records: list[RequestRecord]) -> Iterator[Gateway]:
    """A gateway that keeps answers, with the fake model `m` ready."""
    clock = SystemClock()
    engine = Engine(Settings(home=tmp_path), records.append, clock, lambda: backend)
    with open_database("sqlite://") as database:
        store = ServingStore(database)
        remotes = Remotes(store, 20.0, records.append, clock, {})
        one = Gateway(lambda: engine, remotes, Routes(store), clock, kept=CacheRules(max_bytes=100_000))
        engine.load(fake_spec("m"))
        wait_until(lambda: engine.instances()[0].state is InstanceState.READY)
        yield one
        backend.load_gate.set()
        backend.gate.set()
        one.close()
        engine.close()


@pytest.fixture
def held(backend: FakeBackend) -> Callable[[], None]:
    """Answers wait until the function is called."""
    backend.gate.clear()
    return backend.gate.set


def _request(request_id: str = "one", key_id: str | None = None, temperature: float = 0.0) -> Request:
    sampling = SamplingParams(temperature=temperature)
    said = (Message("user", "Hello"),)
    return Request("m", said, sampling, source="api", request_id=request_id, key_id=key_id, is_cacheable=True)


def _shared(gateway: Gateway, request: Request) -> SharedStream:
    stream = gateway.stream(request)
    assert isinstance(stream, SharedStream)
    return stream


def _text(stream: SharedStream) -> str:
    return "".join(event.text for event in stream if isinstance(event, Delta))


def test_identical_requests_share_one_run(
    cached: Gateway, held: Callable[[], None], records: list[RequestRecord]
) -> None:
    streams = [_shared(cached, _request(f"r{number}")) for number in range(3)]
    assert [request.request_id for request in cached.requests()] == ["r0"]
    held()
    assert len({_text(stream) for stream in streams}) == 1
    finished = [stream.finished for stream in streams]
    assert [one.request_id for one in finished if one] == ["r0", "r1", "r2"]
    wait_until(lambda: len(records) == 3)
    assert sorted((record.request_id, record.source) for record in records) == [
        ("r0", "api"),
        ("r1", "cache"),
        ("r2", "cache"),
    ]
    figures = cached.cache.figures()
    assert (figures.num_misses, figures.num_shared, figures.num_hits, figures.num_entries) == (1, 2, 0, 1)


def test_a_leader_that_leaves_takes_nobody_with_it(cached: Gateway, held: Callable[[], None]) -> None:
    leader, follower = (_shared(cached, _request(name)) for name in ("leader", "follower"))
    leader.close()
    assert leader.finished is not None
    assert leader.finished.reason is FinishReason.CANCELLED
    held()
    assert _text(follower)
    assert follower.finished is not None
    assert follower.finished.reason is FinishReason.STOP
    assert cached.cache.figures().num_entries == 1


def test_the_last_that_leaves_ends_the_run(
    cached: Gateway, held: Callable[[], None], records: list[RequestRecord]
) -> None:
    """Whoever comes after that begins another one, and nothing is kept of what was cancelled."""
    leader, follower = (_shared(cached, _request(name)) for name in ("leader", "follower"))
    leader.close()
    follower.close()
    after = _shared(cached, _request("after"))
    assert not after.is_hit
    assert cached.cache.figures().num_entries == 0
    held()
    assert _text(after)
    wait_until(lambda: len(records) == 3)
    assert {record.request_id: record.status for record in records} == {
        "leader": Status.CANCELLED,
        "follower": Status.CANCELLED,
        "after": Status.SUCCESSFUL,
    }


def test_one_that_comes_late_gets_the_whole_answer(cached: Gateway, backend: FakeBackend) -> None:
    first = _shared(cached, _request("first"))
    text = _text(first)
    assert _text(_shared(cached, _request("second"))) == text


def test_keys_share_neither_answers_nor_runs(cached: Gateway, held: Callable[[], None]) -> None:
    one, other = (_shared(cached, _request(key, key)) for key in ("key-1", "key-2"))
    assert not one.is_hit
    assert not other.is_hit
    held()
    assert _text(one) == _text(other)
    assert cached.cache.figures().num_entries == 2


def test_a_failed_answer_is_not_kept_and_fails_all(cached: Gateway, backend: FakeBackend) -> None:
    backend.gate.clear()
    streams = [_shared(cached, _request(f"r{number}")) for number in range(2)]
    assert cached.cancel("r0")
    backend.gate.set()
    for stream in streams:
        list(stream)
        assert stream.finished is not None
        assert stream.finished.reason is FinishReason.CANCELLED
    assert cached.cache.figures().num_entries == 0


def test_what_refuses_the_leader_refuses_who_waits_for_it(cached: Gateway, records: list[RequestRecord]) -> None:
    """No thread waits for ever, and each has its record."""
    joined, refused = threading.Event(), threading.Event()

    def begin() -> object:
        joined.set()
        refused.wait(30)
        raise QueueFullError("the queue is full")

    with ThreadPoolExecutor(2) as pool:
        leader = pool.submit(cached.cache.stream, _request("leader"), "identity", begin)
        joined.wait(30)
        follower = pool.submit(cached.cache.stream, _request("follower"), "identity", begin)
        wait_until(lambda: cached.cache.figures().num_shared == 1)
        refused.set()
        assert [type(future.exception(30)) for future in (leader, follower)] == [QueueFullError, QueueFullError]
    assert [(record.request_id, record.status) for record in records] == [("follower", Status.REJECTED)]


@pytest.mark.parametrize("request_", [_request(temperature=1.0), Request("m", (Message("user", "Hello"),))])
def test_other_requests_go_past_the_cache(cached: Gateway, request_: Request) -> None:
    """Those that ask for no particular answer, and those that do not say that a kept one will do: the playground's."""
    assert not isinstance(cached.stream(request_), SharedStream)


def test_what_stands_behind_a_name_changes_with_each_load(cached: Gateway) -> None:
    before = cached.identity("m")
    assert before is not None
    assert cached.identity("m") == before
    assert cached.identity("auto") != before
    assert cached.identity("nobody") is None
    engine = cached._engine()
    engine.unload("m", 0.0)
    assert cached.identity("m") is None
    engine.load(fake_spec("m"))
    wait_until(lambda: cached.identity("m") is not None)
    assert cached.identity("m") != before
