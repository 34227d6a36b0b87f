from __future__ import annotations

import math
from dataclasses import FrozenInstanceError, fields, replace
from typing import Any

import pytest

from engine.errors import (
    ConsoleError,
    DeadlineError,
    InstanceNotReadyError,
    InvalidRequestError,
    QueueTimeoutError,
    WorkerDiedError,
)
from engine.inference.request import (
    MAX_SEED,
    MAX_STOP_STRINGS,
    Finished,
    FinishReason,
    Message,
    Request,
    SamplingParams,
    Timing,
    check_request_id,
)
from engine.inference.tools import Tool, ToolCall, ToolUse

_HELLO = (Message("user", "Hello"),)

_REFUSED: list[tuple[str, Any]] = [
    ("temperature", -0.1),
    ("temperature", 2.1),
    ("temperature", math.nan),
    ("top_p", 0.0),
    ("top_p", 1.1),
    ("top_k", -1),
    ("min_p", -0.1),
    ("min_p", 1.5),
    ("repetition_penalty", 0.0),
    ("repetition_penalty", 1e-40),
    ("repetition_penalty", 11.0),
    ("presence_penalty", -2.1),
    ("presence_penalty", 2.1),
    ("frequency_penalty", 3.0),
    ("frequency_penalty", math.inf),
    ("seed", -1),
    ("seed", MAX_SEED + 1),
    ("seed", 10**400),
    ("max_tokens", 0),
    ("max_tokens", -5),
    ("top_logprobs", -1),
    ("top_logprobs", 21),
    ("stop", ("",)),
    ("stop", ("a",) * (MAX_STOP_STRINGS + 1)),
    ("logit_bias", {-1: 1.0}),
    ("logit_bias", {1_000: 1.0}),
    ("logit_bias", {0: 101.0}),
    ("logit_bias", {0: math.nan}),
]


@pytest.mark.parametrize(("name", "value"), _REFUSED)
def test_out_of_bounds_names_the_field(name: str, value: Any) -> None:
    with pytest.raises(InvalidRequestError) as refusal:
        SamplingParams(**{name: value}).check(vocab_size=1_000)
    assert refusal.value.param == name
    assert name in str(refusal.value)


def test_every_field_has_a_case() -> None:
    assert {name for name, _ in _REFUSED} == {item.name for item in fields(SamplingParams)}


@pytest.mark.parametrize(
    "params",
    [
        SamplingParams(),
        SamplingParams(0.0, 1e-9, 0, 0.0, 0.01, -2.0, -2.0, {}, 0, (), 1, 0),
        SamplingParams(2.0, 1.0, 10**9, 1.0, 10.0, 2.0, 2.0, {0: -100.0, 999: 100.0}, MAX_SEED, ("a",) * 16, 10**9, 20),
    ],
)
def test_bounds_themselves_are_allowed(params: SamplingParams) -> None:
    params.check(vocab_size=1_000)


def test_message_has_value_bound_and_digits() -> None:
    with pytest.raises(InvalidRequestError) as refusal:
        SamplingParams(temperature=2.5).check()
    assert str(refusal.value) == "temperature is 2.5; it must be at least 0 and at most 2"
    with pytest.raises(InvalidRequestError, match=r"seed is 9223372036854775808; .* at most 9223372036854775807"):
        SamplingParams(seed=MAX_SEED + 1).check()


def test_bias_message_names_the_vocabulary_once_it_is_known() -> None:
    with pytest.raises(InvalidRequestError, match="token 300; the model's ids run from 0 to 257"):
        SamplingParams(logit_bias={300: 1.0}).check(258)
    with pytest.raises(InvalidRequestError, match=r"token -1; the model's ids run from 0$"):
        SamplingParams(logit_bias={-1: 1.0}).check()


@pytest.mark.parametrize("messages", [(), (Message("user", ""),), (Message("system", " "), Message("user", "\n\t"))])
def test_an_empty_prompt_is_refused(messages: tuple[Message, ...]) -> None:
    with pytest.raises(InvalidRequestError, match="the prompt is empty") as refusal:
        Request("m", messages).check()
    assert refusal.value.param == "messages"


def test_half_a_character_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match="lone surrogate") as refusal:
        Request("m", (Message("user", "Hi \ud800"),)).check()
    assert refusal.value.param == "messages"


@pytest.mark.parametrize("timeout_s", [0.0, -1.0, math.nan, 100_000.0])
def test_a_deadline_out_of_bounds_is_refused(timeout_s: float) -> None:
    with pytest.raises(InvalidRequestError) as refusal:
        Request("m", _HELLO, timeout_s=timeout_s).check()
    assert refusal.value.param == "timeout_s"


@pytest.mark.parametrize(
    ("field", "value"),
    [("max_queue_s", 0.0), ("max_queue_s", math.nan), ("priority", 11), ("priority", -11)],
)
def test_what_concerns_the_queue_is_bounded(field: str, value: Any) -> None:
    with pytest.raises(InvalidRequestError) as refusal:
        Request("m", _HELLO, **{field: value}).check()
    assert refusal.value.param == field
    Request("m", _HELLO, max_queue_s=1.0, priority=-10).check()


@pytest.mark.parametrize("text", ["a", "trace-0.7:x_Y", "0" * 128])
def test_a_callers_id_is_taken(text: str) -> None:
    assert check_request_id(text) == text


@pytest.mark.parametrize("text", ["", "-a", "a b", "a\n", "a\r\nset-cookie: x", "é", "<b>", "a" * 129])
def test_a_callers_id_that_does_not_belong_into_logs_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequestError, match="x-request-id") as refusal:
        check_request_id(text)
    assert refusal.value.param == "x-request-id"


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        (FinishReason.STOP, None),
        (FinishReason.LENGTH, None),
        (FinishReason.CANCELLED, InstanceNotReadyError),
        (FinishReason.DEADLINE, DeadlineError),
        (FinishReason.QUEUE_TIMEOUT, QueueTimeoutError),
        (FinishReason.ERROR, WorkerDiedError),
    ],
)
def test_every_end_but_a_complete_answer_is_an_error(reason: FinishReason, kind: type[ConsoleError] | None) -> None:
    finished = Finished("r", reason, 1, 0, 0, Timing(0.0, 0.0), retry_after_s=4.0)
    failure = finished.failure()
    assert (None if failure is None else type(failure)) is kind
    told = replace(finished, error="because of this").failure()
    assert told is None or str(told) == "because of this"
    if isinstance(failure, QueueTimeoutError):
        assert (failure.status, failure.retry_after_s) == (503, 4.0)


def test_check_covers_the_sampling() -> None:
    with pytest.raises(InvalidRequestError) as refusal:
        Request("m", _HELLO, SamplingParams(top_p=7)).check()
    assert refusal.value.param == "top_p"


def test_each_request_has_its_own_id() -> None:
    assert Request("m", _HELLO).request_id != Request("m", _HELLO).request_id


def test_requests_are_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        Request("m", _HELLO).model = "n"  # type: ignore[misc]


@pytest.mark.parametrize("arguments", ["", "{", "[]", "null", '{"x": '])
def test_a_call_without_an_object_is_refused(arguments: str) -> None:
    calls = (ToolCall("1", "add", "{}"), ToolCall("2", "add", arguments))
    with pytest.raises(InvalidRequestError, match="the call 2 of add are no JSON object") as refusal:
        Request("m", (*_HELLO, Message("assistant", "", calls))).check()
    assert refusal.value.param == "messages.1.tool_calls.1.function.arguments"


def test_half_a_character_in_a_call_is_refused() -> None:
    call = ToolCall("1", "add\ud800", "{}")
    with pytest.raises(InvalidRequestError, match="lone surrogate"):
        Request("m", (*_HELLO, Message("assistant", "", (call,)))).check()


def test_check_covers_the_tools() -> None:
    with pytest.raises(InvalidRequestError) as refusal:
        Request("m", _HELLO, tools=ToolUse((Tool("a"), Tool("a")))).check()
    assert refusal.value.param == "tools"


@pytest.mark.parametrize("prompt", ["a", (1, 2)])
def test_a_plain_prompt_needs_no_messages(prompt: str | tuple[int, ...]) -> None:
    Request("m", (), prompt=prompt).check()


@pytest.mark.parametrize(
    ("prompt", "words"), [("", "prompt is empty"), ((), "prompt is empty"), ("\ud800", "half a character")]
)
def test_a_plain_prompt_that_says_nothing_is_refused(prompt: str | tuple[int, ...], words: str) -> None:
    with pytest.raises(InvalidRequestError, match=words) as refusal:
        Request("m", (), prompt=prompt).check()
    assert refusal.value.param == "prompt"
