"""What hostile or broken clients do to an engine over a real model: it keeps its bounds, and serves the next one."""

from __future__ import annotations

import resource
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine.config import Settings
from engine.engine import Engine
from engine.errors import ConsoleError, ContextLengthError, InvalidRequestError, QueueFullError
from engine.inference.request import Delta, Finished, FinishReason, Message, Request, SamplingParams
from engine.instance import InstanceState
from engine.latency.record import RequestRecord, Status
from engine.models.spec import ModelSpec
from tests.fakes import wait_until

_HELLO = (Message("user", "Hello"),)
_ENDLESS = Request("tiny", _HELLO, SamplingParams(seed=1, max_tokens=1_900, logit_bias={257: -100.0}))
_SHORT = replace(_ENDLESS, sampling=replace(_ENDLESS.sampling, max_tokens=4))
_NUM_DROPPED = 10_000
_MOST_GROWTH_BYTES = 64 << 20


@pytest.fixture(scope="module")
def all_records() -> list[RequestRecord]:
    return []


@pytest.fixture(scope="module")
def engine(
    tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory, all_records: list[RequestRecord]
) -> Iterator[Engine]:
    home = tmp_path_factory.mktemp("home")
    settings = Settings(home=home, device="cpu", max_running=4, max_waiting=16, kv_cache_gib=0.1)
    one = Engine(settings, all_records.append)
    one.load(ModelSpec(str(tiny_folder), "tiny", device="cpu"))
    wait_until(lambda: one.instances()[0].state is InstanceState.READY, 60)
    yield one
    one.close()


@pytest.fixture
def records(engine: Engine, all_records: list[RequestRecord]) -> list[RequestRecord]:
    """What this test's requests leave; what the ones before left has arrived, because it was waited for."""
    all_records.clear()
    return all_records


def _ask(request: Request) -> Request:
    return replace(request, request_id=Request("", ()).request_id)


def _answer(engine: Engine) -> str:
    return "".join(event.text for event in engine.stream(_ask(_SHORT)) if isinstance(event, Delta))


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def test_ten_thousand_requests_opened_and_dropped(engine: Engine, records: list[RequestRecord]) -> None:
    assert _answer(engine)
    before_bytes, deadline_s = _peak_bytes(), time.monotonic() + 120
    ends: Counter[str] = Counter()
    for _ in range(_NUM_DROPPED):
        assert time.monotonic() < deadline_s
        try:
            engine.stream(_ask(_ENDLESS)).close()
            ends["begun"] += 1
        except QueueFullError:
            ends["refused"] += 1
    wait_until(lambda: engine.requests() == ())
    wait_until(lambda: len(records) == _NUM_DROPPED + 1)
    assert ends["begun"] > 0
    by_status = Counter(record.status for record in records[1:])
    assert by_status == Counter({Status.CANCELLED: ends["begun"], Status.REJECTED: ends["refused"]})
    assert _peak_bytes() - before_bytes < _MOST_GROWTH_BYTES
    assert _answer(engine)
    wait_until(lambda: len(records) == _NUM_DROPPED + 2)


@pytest.mark.parametrize(
    ("request_", "error", "code"),
    [
        (
            replace(_SHORT, sampling=SamplingParams(max_tokens=1_000_000)),
            ContextLengthError,
            "context_length_exceeded",
        ),
        (replace(_SHORT, messages=(Message("user", "x" * 1_000_000),)), ContextLengthError, "context_length_exceeded"),
        (replace(_SHORT, messages=(Message("user", "\ud800"),)), InvalidRequestError, "invalid_request"),
        (replace(_SHORT, priority=1_000), InvalidRequestError, "invalid_request"),
        (replace(_SHORT, max_queue_s=-1.0), InvalidRequestError, "invalid_request"),
    ],
    ids=["million tokens", "long prompt", "surrogate", "priority", "queue time"],
)
def test_what_cannot_be_done_is_refused_and_recorded(
    engine: Engine, records: list[RequestRecord], request_: Request, error: type[ConsoleError], code: str
) -> None:
    with pytest.raises(error):
        engine.stream(_ask(request_))
    (record,) = records
    assert (record.status, record.finish_reason) == (Status.REJECTED, code)
    assert engine.requests() == ()


def test_a_worker_killed_amid_answers(
    engine: Engine, records: list[RequestRecord], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.instance.instance._FIRST_PAUSE_S", 0.01)
    streams = [engine.stream(_ask(_ENDLESS)) for _ in range(6)]
    assert streams[0].wait(30)

    def kill(*_: Any) -> None:
        raise SystemExit("killed")

    with monkeypatch.context() as broken:
        broken.setattr("engine.inference.runner.Runner._compute_chunks", kill)
        ends = [list(stream)[-1] for stream in streams]
    assert {end.reason for end in ends if isinstance(end, Finished)} == {FinishReason.ERROR}
    assert engine.requests() == ()
    wait_until(lambda: engine.instances()[0].state is InstanceState.READY)
    assert _answer(engine)
    wait_until(lambda: len(records) == 7)


def test_an_answer_that_nobody_reads_ends(
    engine: Engine, records: list[RequestRecord], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.inference.outputs.MAX_UNREAD_TOKENS", 200)
    stream = engine.stream(_ask(_ENDLESS))
    wait_until(lambda: stream.finished is not None)
    assert stream.finished is not None
    assert (stream.finished.reason, stream.finished.num_output_tokens) == (FinishReason.CANCELLED, 201)
    assert stream.overrun is not None
    wait_until(lambda: [record.error for record in records] == [stream.overrun])
    assert engine.requests() == ()
