from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from engine.config import Settings
from engine.errors import InstanceNotFoundError, QueueFullError
from engine.inference.request import WARM_UP, Finished, FinishReason, Message, Request, Timing
from engine.latency.record import RequestRecord, Status
from engine.log_lines import JsonFormatter
from engine.recording import Recording, make_record, make_refusal
from tests.fakes import FakeClock, FakeSequence

_SECRET = "my password is hunter2"
_ASKED = Request("m", (Message("user", _SECRET),), request_id="r", source="api", key_id="key-1")
_TIMING = Timing(1_700_000_000.0, 50.0, 51.0, None, None, 53.5)
_ENDED = Finished("r", FinishReason.STOP, 3, 0, 9, _TIMING)


class Kept:
    """A recording over two lists."""

    def __init__(self, home: Path, **fields: object) -> None:
        self.records: list[RequestRecord] = []
        self.refusals: list[RequestRecord] = []
        settings = Settings(home=home).model_copy(update=fields)
        self.recording = Recording(self.records.append, self.refusals.append, FakeClock(), settings)


@pytest.fixture
def lines() -> Iterator[list[str]]:
    """What the requests' logger writes, as JSON mode has it."""
    written: list[str] = []

    class Lines(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            written.append(self.format(record))

    handler = Lines()
    handler.setFormatter(JsonFormatter())
    logger = logging.getLogger("engine.requests")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield written
    logger.removeHandler(handler)
    logger.setLevel(logging.NOTSET)


def _sequence(request: Request = _ASKED) -> FakeSequence:
    return FakeSequence(request, _TIMING, ())


@pytest.mark.parametrize(
    ("reason", "scheduled_s", "status", "finish_reason"),
    [
        (FinishReason.STOP, 51.0, Status.SUCCESSFUL, "stop"),
        (FinishReason.LENGTH, 51.0, Status.SUCCESSFUL, "length"),
        (FinishReason.CANCELLED, 51.0, Status.CANCELLED, "cancelled"),
        (FinishReason.CANCELLED, None, Status.CANCELLED, "cancelled"),
        (FinishReason.DEADLINE, 51.0, Status.ERRORED, "deadline"),
        (FinishReason.DEADLINE, None, Status.REJECTED, "deadline_exceeded"),
        (FinishReason.QUEUE_TIMEOUT, None, Status.REJECTED, "queue_timeout"),
        (FinishReason.ERROR, 51.0, Status.ERRORED, "error"),
        (FinishReason.ERROR, None, Status.ERRORED, "error"),
    ],
)
def test_how_it_ended(reason: FinishReason, scheduled_s: float | None, status: Status, finish_reason: str) -> None:
    finished = replace(_ENDED, reason=reason, timing=replace(_TIMING, scheduled_s=scheduled_s), error="why")
    record = make_record(_ASKED, finished)
    assert (record.status, record.finish_reason, record.error) == (status, finish_reason, "why")
    assert record.key_id == "key-1"


def test_a_remote_answer_that_ran_too_long_was_not_rejected() -> None:
    timing = replace(_TIMING, scheduled_s=None, first_token_s=51.0)
    record = make_record(_ASKED, replace(_ENDED, reason=FinishReason.DEADLINE, timing=timing))
    assert (record.status, record.finish_reason) == (Status.ERRORED, "deadline")


def test_times_count_from_receipt() -> None:
    record = make_record(_ASKED, _ENDED)
    assert (record.received_at_s, record.scheduled_s, record.first_token_s) == (1_700_000_000.0, 1.0, None)
    assert record.finished_s == 3.5


def test_a_refusal_has_the_errors_code() -> None:
    record = make_refusal(_ASKED, QueueFullError("the queue of m is full"), 1_700_000_000.0, 0.25)
    assert (record.status, record.finish_reason) == (Status.REJECTED, "queue_full")
    assert (record.error, record.finished_s, record.key_id) == ("the queue of m is full", 0.25, "key-1")
    assert (record.ttft_s, record.num_prompt_tokens) == (None, 0)


def test_a_refusal_keeps_no_more_than_it_must_of_what_was_sent() -> None:
    long_name = "m" * 1_000_000
    record = make_refusal(replace(_ASKED, model=long_name), InstanceNotFoundError(f"no {long_name}"), 0.0, 0.0)
    assert len(record.model) == 500
    assert len(record.error or "") == 500


def test_ends_and_refusals_go_their_own_ways(tmp_path: Path) -> None:
    kept = Kept(tmp_path)
    kept.recording.finish(_sequence(), _ENDED)  # type: ignore[arg-type]
    kept.recording.refuse(_ASKED, QueueFullError("full"), Timing(1_700_000_000.0, 999.5))
    assert [record.finish_reason for record in kept.records] == ["stop"]
    assert [(record.finish_reason, record.finished_s) for record in kept.refusals] == [("queue_full", 0.5)]


def test_warm_ups_are_nobodys(tmp_path: Path) -> None:
    kept = Kept(tmp_path)
    kept.recording.finish(_sequence(replace(_ASKED, source=WARM_UP)), _ENDED)  # type: ignore[arg-type]
    assert kept.records == []


def test_a_record_that_cannot_be_kept_ends_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def fail(_record: RequestRecord) -> None:
        raise OSError("disk full")

    recording = Recording(fail, fail, FakeClock(), Settings(home=tmp_path))
    recording.finish(_sequence(), _ENDED)  # type: ignore[arg-type]
    assert "the record of r is lost" in caplog.text


def test_one_line_a_request_without_its_prompt(tmp_path: Path, lines: list[str]) -> None:
    kept = Kept(tmp_path, log_format="json")
    kept.recording.finish(_sequence(), _ENDED)  # type: ignore[arg-type]
    kept.recording.refuse(_ASKED, QueueFullError("full"), _TIMING)
    ended, refused = (json.loads(line) for line in lines)
    assert (ended["request_id"], ended["model"], ended["status"]) == ("r", "m", "successful")
    assert (ended["key_id"], ended["num_prompt_tokens"], ended["scheduled_s"]) == ("key-1", 3, 1.0)
    assert (refused["status"], refused["finish_reason"], refused["error"]) == ("rejected", "queue_full", "full")
    assert _SECRET not in "".join(lines)


def test_prompts_are_logged_only_when_that_was_asked_for(tmp_path: Path, lines: list[str]) -> None:
    kept = Kept(tmp_path, log_format="json", log_prompts=True)
    kept.recording.finish(_sequence(), _ENDED)  # type: ignore[arg-type]
    plain = replace(_ASKED, messages=(), prompt="Once upon")
    kept.recording.finish(_sequence(plain), _ENDED)  # type: ignore[arg-type]
    assert json.loads(lines[0])["prompt"] == [{"role": "user", "content": _SECRET}]
    assert json.loads(lines[1])["prompt"] == "Once upon"


def test_plain_logs_have_no_line_a_request(tmp_path: Path, lines: list[str]) -> None:
    Kept(tmp_path, log_prompts=True).recording.finish(_sequence(), _ENDED)  # type: ignore[arg-type]
    assert lines == []


def test_gaps_are_kept_by_model_over_restarts(tmp_path: Path) -> None:
    recording = Kept(tmp_path).recording
    recording.gaps_of("m").observe(0.02)
    recording.gaps_of("m").observe(0.03)
    assert recording.gaps()["m"].total == pytest.approx(0.05)
