from __future__ import annotations

import threading
from dataclasses import replace

import pytest

from engine.config import Settings
from engine.engine import Engine
from engine.errors import ConsoleError, InstanceNotFoundError, InvalidRequestError, QueueFullError, RateLimitError
from engine.inference.embedding import EmbeddingRequest
from engine.inference.outputs import OutputStream
from engine.inference.request import Message, Request, SamplingParams
from engine.keyring import ANONYMOUS, Caller
from engine.latency.record import RequestRecord, Status
from engine.scheduling.quota import Quota
from engine.scheduling.quotas import Meter, Quotas, format_reset
from engine.state.api_keys import Scope, Usage
from tests.fakes import FakeBackend, FakeClock, fake_spec, wait_until

_HI = (Message("user", "Hi"),)


class _Engine:
    """Takes every request, or raises `error`."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.refused: list[tuple[Request | EmbeddingRequest, ConsoleError]] = []
        self.error: Exception | None = None

    def stream(self, request: Request) -> OutputStream:
        if self.error is not None:
            raise self.error
        self.requests.append(request)
        return OutputStream(request.request_id, 0.0, lambda: None)

    def embed(self, request: object) -> None:
        raise AssertionError("nobody asked for it")

    def note_refusal(self, request: Request | EmbeddingRequest, error: ConsoleError) -> None:
        self.refused.append((request, error))


class _Desk:
    """Quotas over a fake engine and a clock that stands still."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.engine = _Engine()
        self.usages: dict[str, Usage] = {}
        self.quotas = Quotas(self._count, 100, self.clock)

    def _count(self, key_id: str, usage: Usage) -> None:
        self.usages[key_id] = self.usages.get(key_id, Usage()) + usage

    @property
    def usage(self) -> Usage:
        assert self.usages.keys() <= {"key-1"}
        return self.usages.get("key-1", Usage())

    def meter(self, key_id: str = "key-1", **bounds: int) -> Meter:
        caller = Caller(key_id, "one", frozenset({Scope.INFERENCE}), Quota(**bounds))
        return self.quotas.meter(caller, self.engine)  # type: ignore[arg-type]

    def finish(self, request: Request, num_prompt: int, num_output: int) -> None:
        self.quotas.settle(_record(request.request_id, num_prompt, num_output))


def _record(request_id: str, num_prompt: int, num_output: int) -> RequestRecord:
    return RequestRecord(
        request_id,
        "m",
        "api",
        0.0,
        0.1,
        0.2,
        0.3,
        0.4,
        num_prompt,
        num_output,
        "stop",
        Status.SUCCESSFUL,
        key_id="key-1",
    )


def _request(max_tokens: int | None = 10, model: str = "m") -> Request:
    return Request(model, _HI, SamplingParams(max_tokens=max_tokens))


@pytest.fixture
def desk() -> _Desk:
    return _Desk()


def test_the_request_carries_its_key(desk: _Desk) -> None:
    with desk.meter() as meter:
        meter.stream(_request())
    assert desk.engine.requests[0].key_id == "key-1"


def test_who_needs_no_key_has_no_quota_and_no_headers(desk: _Desk) -> None:
    with desk.quotas.meter(ANONYMOUS, desk.engine) as meter:  # type: ignore[arg-type]
        for _ in range(100):
            meter.stream(_request())
        assert meter.headers() == {}
    desk.finish(desk.engine.requests[0], 5, 5)
    assert desk.usage == Usage()


def test_requests_a_minute_with_openais_headers(desk: _Desk) -> None:
    with desk.meter(requests_per_minute=1) as meter:
        meter.stream(_request())
        assert meter.headers() == {
            "x-ratelimit-limit-requests": "1",
            "x-ratelimit-remaining-requests": "0",
            "x-ratelimit-reset-requests": "1m0s",
        }
    desk.clock.advance(20)
    with pytest.raises(
        RateLimitError, match="requests_per_minute of the key 'one' is 1, and used up: try again in 40 s"
    ) as refusal:
        desk.meter(requests_per_minute=1).stream(_request())
    assert refusal.value.retry_after_s == pytest.approx(40)
    assert refusal.value.headers["x-ratelimit-reset-requests"] == "40s"
    ((refused, error),) = desk.engine.refused
    assert (refused.key_id, error) == ("key-1", refusal.value)
    desk.clock.advance(40)
    desk.meter(requests_per_minute=1).stream(_request())
    assert desk.usage.num_rejected == 1


def test_a_request_that_was_sent_on_is_charged_for_each_try(desk: _Desk) -> None:
    request = _request()
    with desk.meter(tokens_per_minute=1_000) as meter:
        meter.stream(request)
    for num_output in (2, 5):
        desk.finish(request, 10, num_output)
    assert (desk.usage.num_prompt_tokens, desk.usage.num_output_tokens) == (20, 7)
    assert desk.meter(tokens_per_minute=1_000).headers()["x-ratelimit-remaining-tokens"] == "973"


def test_several_answers_to_one_request_count_as_one_request_and_hold_tokens_each(desk: _Desk) -> None:
    with desk.meter(requests_per_minute=1, tokens_per_minute=100, concurrent_requests=1) as meter:
        for _ in range(3):
            meter.stream(_request(max_tokens=29))
        assert meter.headers()["x-ratelimit-remaining-tokens"] == "10"
        with pytest.raises(RateLimitError, match="used or promised to"):
            meter.stream(_request(max_tokens=29))


def test_tokens_really_used_are_charged_when_the_record_comes(desk: _Desk) -> None:
    with desk.meter(tokens_per_minute=100) as meter:
        meter.stream(_request(max_tokens=59))
        assert meter.headers()["x-ratelimit-remaining-tokens"] == "40"
    desk.finish(desk.engine.requests[0], 4, 6)
    assert desk.meter(tokens_per_minute=100).headers()["x-ratelimit-remaining-tokens"] == "90"
    assert desk.usage == Usage(num_prompt_tokens=4, num_output_tokens=6)


def test_a_request_that_names_no_bound_is_taken_to_write_the_default(desk: _Desk) -> None:
    with desk.meter(tokens_per_minute=1_000) as meter:
        meter.stream(_request(max_tokens=None))
        assert meter.headers()["x-ratelimit-remaining-tokens"] == "899"


def test_one_larger_than_a_minutes_quota_is_told_that_waiting_is_no_use(desk: _Desk) -> None:
    with pytest.raises(InvalidRequestError, match=r"may take 201 tokens, and tokens_per_minute .* is 100") as refusal:
        desk.meter(tokens_per_minute=100).stream(_request(max_tokens=200))
    assert refusal.value.param == "max_tokens"


def test_concurrent_requests_end_with_their_answers(desk: _Desk) -> None:
    first = desk.meter(concurrent_requests=1)
    first.stream(_request())
    with pytest.raises(RateLimitError, match="concurrent_requests of the key 'one' is 1, and as many"):
        desk.meter(concurrent_requests=1).stream(_request())
    first.close()
    first.close()
    second = desk.meter(concurrent_requests=1)
    second.stream(_request())
    with pytest.raises(RateLimitError):
        desk.meter(concurrent_requests=1).stream(_request())


def test_what_did_not_begin_is_not_charged(desk: _Desk) -> None:
    desk.engine.error = InstanceNotFoundError("there is no model named 'm'")
    with desk.meter(tokens_per_minute=100) as meter, pytest.raises(InstanceNotFoundError):
        meter.stream(_request(max_tokens=90))
    desk.engine.error = None
    desk.meter(tokens_per_minute=100).stream(_request(max_tokens=90))
    assert desk.usage.num_rejected == 0


def test_a_full_queue_counts_as_a_rejection(desk: _Desk) -> None:
    desk.engine.error = QueueFullError("the queue is full")
    with desk.meter() as meter, pytest.raises(QueueFullError):
        meter.stream(_request())
    assert desk.usage.num_rejected == 1


def test_two_requests_with_one_id_are_both_settled(desk: _Desk) -> None:
    request = _request(max_tokens=39)
    with desk.meter(tokens_per_minute=100) as meter:
        meter.stream(request)
        meter.stream(request)
    desk.finish(request, 1, 1)
    desk.finish(request, 1, 1)
    desk.quotas.settle(replace(_record(request.request_id, 1, 1), key_id=None))
    assert desk.meter(tokens_per_minute=100).headers()["x-ratelimit-remaining-tokens"] == "96"


def test_a_request_of_another_key_with_the_same_id_settles_nothing_of_this_one(desk: _Desk) -> None:
    request = _request(max_tokens=39)
    desk.meter(tokens_per_minute=100).stream(request)
    desk.engine.error = InvalidRequestError("request_id is running already")
    with pytest.raises(InvalidRequestError):
        desk.meter("key-2", tokens_per_minute=100).stream(request)
    desk.quotas.settle(replace(_record(request.request_id, 1, 1), key_id=None))
    assert desk.meter(tokens_per_minute=100).headers()["x-ratelimit-remaining-tokens"] == "60"
    desk.finish(request, 4, 6)
    assert desk.usages == {"key-1": Usage(num_prompt_tokens=4, num_output_tokens=6)}
    assert desk.meter("key-2", tokens_per_minute=100).headers()["x-ratelimit-remaining-tokens"] == "100"


def test_a_bound_too_large_for_a_float_is_refused_as_any_other(desk: _Desk) -> None:
    with pytest.raises(InvalidRequestError, match=r"tokens_per_minute .* is 100: lower max_tokens"):
        desk.meter(tokens_per_minute=100).stream(_request(max_tokens=10**400))
    desk.meter().stream(_request(max_tokens=10**400))
    assert len(desk.engine.requests) == 1  # whose bounds are the engine's to check


def test_what_goes_on_beyond_its_http_request_still_counts(desk: _Desk) -> None:
    with desk.meter(concurrent_requests=1) as meter:
        meter.stream(_request())
        leave = meter.hand_over()
    with pytest.raises(RateLimitError):
        desk.meter(concurrent_requests=1).stream(_request())
    leave()
    desk.meter(concurrent_requests=1).stream(_request())


def test_a_changed_quota_counts_from_the_next_request(desk: _Desk) -> None:
    desk.meter(requests_per_minute=100).stream(_request())
    assert desk.meter(requests_per_minute=5).headers()["x-ratelimit-remaining-requests"] == "5"
    assert desk.meter().headers() == {}


def test_many_threads_never_pass_the_bound(desk: _Desk) -> None:
    num_passed = []

    def ask() -> None:
        for _ in range(50):
            try:
                desk.meter(requests_per_minute=60).stream(_request())
            except RateLimitError:
                continue
            num_passed.append(1)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(num_passed) == 60


def test_the_engines_records_settle_what_was_held() -> None:
    clock = FakeClock()
    used: list[Usage] = []
    quotas = Quotas(lambda _, usage: used.append(usage), 100, clock)
    backend = FakeBackend()
    engine = Engine(Settings(), quotas.settle, open_backend=lambda: backend)
    engine.load(fake_spec())
    wait_until(lambda: engine.instances()[0].state.value == "ready")
    caller = Caller("key-1", "one", frozenset(), Quota(tokens_per_minute=100))
    with quotas.meter(caller, engine) as meter:
        backend.gate.clear()
        stream = meter.stream(_request(max_tokens=50))
        stream.close()  # the client leaves
    backend.gate.set()
    wait_until(lambda: bool(used))
    assert used[0].num_prompt_tokens == 1
    num_used = used[0].num_prompt_tokens + used[0].num_output_tokens
    assert quotas.headers(caller)["x-ratelimit-remaining-tokens"] == str(100 - num_used)
    engine.close()


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0ms"), (0.8341, "835ms"), (1, "1s"), (12.31, "12.4s"), (60, "1m0s"), (119.96, "2m0s")]
)
def test_durations_as_openai_writes_them(seconds: float, text: str) -> None:
    assert format_reset(seconds) == text
