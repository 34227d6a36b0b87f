from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from engine.api.chat_schema import ChatCompletionRequest
from engine.errors import InvalidRequestError
from engine.inference.request import MAX_SEED, Message, SamplingParams

_HI = [{"role": "user", "content": "Hi"}]


def _parse(**fields: Any) -> ChatCompletionRequest:
    return ChatCompletionRequest.model_validate({"model": "m", "messages": _HI, **fields})


def test_defaults_are_the_engines() -> None:
    request = _parse().to_request()
    assert request.sampling == SamplingParams()
    assert (request.model, request.messages, request.source, request.timeout_s) == (
        "m",
        (Message("user", "Hi"),),
        "api",
        None,
    )


def test_every_parameter_arrives() -> None:
    request = _parse(
        temperature=0.5,
        top_p=0.9,
        top_k=40,
        min_p=0.05,
        repetition_penalty=1.1,
        presence_penalty=0.2,
        frequency_penalty=0.3,
        logit_bias={"7": -1.5},
        seed=11,
        stop=["a", "b"],
        max_tokens=12,
        logprobs=True,
        top_logprobs=3,
        timeout_s=9,
    ).to_request()
    assert request.sampling == SamplingParams(0.5, 0.9, 40, 0.05, 1.1, 0.2, 0.3, {7: -1.5}, 11, ("a", "b"), 12, 3)
    assert request.timeout_s == 9


@pytest.mark.parametrize(
    ("fields", "stop"), [({"stop": "a"}, ("a",)), ({"stop": []}, ()), ({"stop": None}, ()), ({}, ())]
)
def test_stop_in_its_forms(fields: dict[str, Any], stop: tuple[str, ...]) -> None:
    assert _parse(**fields).to_request().sampling.stop == stop


@pytest.mark.parametrize(
    ("fields", "max_tokens"),
    [
        ({}, None),
        ({"max_tokens": 3}, 3),
        ({"max_completion_tokens": 4}, 4),
        ({"max_tokens": 5, "max_completion_tokens": 5}, 5),
    ],
)
def test_max_tokens_by_either_name(fields: dict[str, Any], max_tokens: int | None) -> None:
    assert _parse(**fields).to_request().sampling.max_tokens == max_tokens


@pytest.mark.parametrize(
    ("fields", "top_logprobs"), [({}, None), ({"logprobs": True}, 0), ({"logprobs": True, "top_logprobs": 4}, 4)]
)
def test_logprobs(fields: dict[str, Any], top_logprobs: int | None) -> None:
    assert _parse(**fields).to_request().sampling.top_logprobs == top_logprobs


def test_roles_and_parts() -> None:
    parts = [{"type": "text", "text": "What is "}, {"type": "text", "text": "this?"}]
    messages = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": parts, "name": "ann"},
        {"role": "assistant", "content": "A cat."},
    ]
    assert _parse(messages=messages).to_request().messages == (
        Message("system", "Be brief."),
        Message("user", "What is this?", name="ann"),
        Message("assistant", "A cat."),
    )


@pytest.mark.parametrize(
    "fields",
    [
        {"unknown": 1},
        {"messages": [{"role": "user", "content": "Hi", "tool_calls": []}]},
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x", "size": 1}}]}]},
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "", "detail": "b"}}]}]},
        {"messages": [{"role": "user", "content": [{"type": "image_url", "text": "x"}]}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "x", "image_url": {"url": "x"}}]}]},
        {"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]},
        {"messages": [{"role": "user", "content": 5}]},
        {"stream_options": {"include_obfuscation": True}, "stream": True},
        {"n": 1.5},
        {"seed": 1.5},
        {"logprobs": 3},
    ],
)
def test_what_is_not_known_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        _parse(**fields)


@pytest.mark.parametrize("key", ["x", "1.5", "", "1" * 5_000])
def test_a_bias_for_what_is_no_token(key: str) -> None:
    with pytest.raises(InvalidRequestError) as refusal:
        _parse(logit_bias={key: 1}).to_request()
    assert refusal.value.param == "logit_bias"


def test_a_user_is_accepted_and_has_no_effect() -> None:
    assert _parse(user="ann").to_request().sampling == SamplingParams()


def test_answers_have_ids_and_seeds_of_their_own() -> None:
    (only,) = _parse(seed=3).to_requests("r")
    assert (only.request_id, only.sampling.seed) == ("r", 3)
    several = _parse(seed=3, n=3).to_requests("r")
    assert [(one.request_id, one.sampling.seed) for one in several] == [("r-0", 3), ("r-1", 4), ("r-2", 5)]
    seeds = [one.sampling.seed or 0 for one in _parse(n=2).to_requests("r")]
    assert seeds[1] == seeds[0] + 1
    highest = _parse(n=2, seed=MAX_SEED).to_requests("r")
    assert [one.sampling.seed for one in highest] == [MAX_SEED, MAX_SEED - 1]


@pytest.mark.parametrize("name", ["temperature", "top_p", "stop", "n", "logprobs", "stream", "tools", "audio", "seed"])
def test_null_is_as_if_left_out(name: str) -> None:
    assert _parse(**{name: None}).to_request().sampling == SamplingParams()
