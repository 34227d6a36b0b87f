from __future__ import annotations

import json
from typing import Any, Literal

import jsonschema
import openai
import pytest
from pydantic import BaseModel, Field

from engine.console import Console
from tests.conftest import SAMPLE_NAME
from tests.engine.api.servers import build_app, serve

_QUESTION: Any = [{"role": "user", "content": "What is the weather in Paris?"}]
_PARAMETERS: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 6}, "days": {"type": "integer", "minimum": 1, "maximum": 7}},
    "required": ["city", "days"],
    "additionalProperties": False,
}
_WEATHER: Any = {"type": "function", "function": {"name": "get_weather", "parameters": _PARAMETERS}}
_TIME: Any = {"type": "function", "function": {"name": "get_time", "description": "The time now."}}
_NAMED: Any = {"type": "function", "function": {"name": "get_weather"}}


class Weather(BaseModel):
    """The weather of a city."""

    city: str = Field(max_length=6)
    unit: Literal["C", "F"]


def _ask(client: openai.OpenAI, **fields: Any) -> Any:
    usual = {"model": "tiny", "messages": _QUESTION, "max_tokens": 300, "tools": [_WEATHER, _TIME]}
    return client.chat.completions.create(**{**usual, **fields})


def _check(calls: Any) -> None:
    assert calls
    for call in calls:
        assert (call.type, call.id[:5]) == ("function", "call_")
        schema = _PARAMETERS if call.function.name == "get_weather" else {"type": "object", "maxProperties": 0}
        jsonschema.validate(json.loads(call.function.arguments), schema)


@pytest.mark.parametrize("seed", range(3))
def test_a_named_tool_is_called_once(client: openai.OpenAI, seed: int) -> None:
    choice = _ask(client, tool_choice=_NAMED, seed=seed).choices[0]
    assert (choice.finish_reason, choice.message.content) == ("tool_calls", None)
    assert [call.function.name for call in choice.message.tool_calls] == ["get_weather"]
    _check(choice.message.tool_calls)


@pytest.mark.parametrize("fields", [{"temperature": 0}, {"seed": 1}, {"seed": 2}])
def test_some_tool_is_called(client: openai.OpenAI, fields: dict[str, Any]) -> None:
    choice = _ask(client, tool_choice="required", parallel_tool_calls=False, **fields).choices[0]
    assert (choice.finish_reason, choice.message.content) == ("tool_calls", None)
    assert len(choice.message.tool_calls) == 1
    _check(choice.message.tool_calls)


def test_only_tools_that_are_allowed_are_called(client: openai.OpenAI) -> None:
    allowed: Any = {
        "type": "allowed_tools",
        "allowed_tools": {"mode": "required", "tools": [{"type": "function", "function": {"name": "get_time"}}]},
    }
    for seed in range(3):
        choice = _ask(client, tool_choice=allowed, seed=seed, parallel_tool_calls=False).choices[0]
        assert [call.function.name for call in choice.message.tool_calls] == ["get_time"]


def test_a_stream_has_the_same_call_in_pieces(client: openai.OpenAI) -> None:
    whole = _ask(client, tool_choice=_NAMED, seed=3).choices[0].message.tool_calls[0].function
    chunks = list(_ask(client, tool_choice=_NAMED, seed=3, stream=True))
    deltas = [chunk.choices[0].delta for chunk in chunks]
    pieces = [piece for delta in deltas for piece in delta.tool_calls or []]
    assert (pieces[0].index, pieces[0].type, pieces[0].function.name) == (0, "function", "get_weather")
    assert pieces[0].id.startswith("call_")
    assert {(piece.index, piece.id, piece.function.name) for piece in pieces[1:]} == {(0, None, None)}
    assert len(pieces) > 5
    assert "".join(piece.function.arguments for piece in pieces) == whole.arguments
    assert "".join(delta.content or "" for delta in deltas) == ""
    assert chunks[-1].choices[0].finish_reason == "tool_calls"


def test_several_calls_have_indices(client: openai.OpenAI) -> None:
    for seed in range(40):
        chunks = list(_ask(client, tools=[_TIME], tool_choice="required", seed=seed, stream=True))
        pieces = [piece for chunk in chunks for piece in chunk.choices[0].delta.tool_calls or []]
        begun = [piece.index for piece in pieces if piece.id is not None]
        assert begun == list(range(len(begun)))
        if len(begun) > 1:
            return
    raise AssertionError("no answer had two calls")


def test_a_call_that_is_cut_off_is_told(client: openai.OpenAI) -> None:
    choice = _ask(client, tool_choice=_NAMED, max_tokens=60, seed=1).choices[0]
    assert choice.finish_reason == "length"


def test_a_call_cut_by_a_stop_string_stays_content(client: openai.OpenAI) -> None:
    choice = _ask(client, tool_choice=_NAMED, seed=1, stop='"days"').choices[0]
    assert (choice.finish_reason, choice.message.tool_calls) == ("stop", None)
    assert choice.message.content.startswith('<tool_call>\n{"name": "get_weather", "arguments": {"city":')


@pytest.mark.parametrize("choice", ["none", "auto"])
def test_free_answers(client: openai.OpenAI, choice: str) -> None:
    """The tiny model writes no call by itself."""
    answer = _ask(client, tool_choice=choice, seed=1, max_tokens=30, logit_bias={"257": -100}).choices[0]
    assert answer.message.tool_calls is None
    assert answer.message.content


def test_none_hides_the_tools(client: openai.OpenAI) -> None:
    bare = _ask(client, tools=openai.NOT_GIVEN, max_tokens=1).usage.prompt_tokens
    assert _ask(client, tool_choice="none", max_tokens=1).usage.prompt_tokens == bare
    assert _ask(client, tool_choice="auto", max_tokens=1).usage.prompt_tokens > bare


def test_a_strict_tool_may_be_called_or_not(client: openai.OpenAI) -> None:
    strict: Any = {"type": "function", "function": {**_WEATHER["function"], "strict": True}}
    answer = _ask(client, tools=[strict], seed=1, max_tokens=40).choices[0]
    assert answer.message.content


def test_the_answer_to_a_call(client: openai.OpenAI) -> None:
    first = _ask(client, tool_choice=_NAMED, seed=3).choices[0].message
    result: Any = {"role": "tool", "tool_call_id": first.tool_calls[0].id, "content": "rain"}
    second = _ask(client, messages=[*_QUESTION, first, result], seed=3, max_tokens=10, logit_bias={"257": -100})
    assert second.choices[0].message.content


def test_calls_or_json(client: openai.OpenAI) -> None:
    form: Any = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "boolean"}, "strict": True}}
    message = _ask(client, response_format=form, parallel_tool_calls=False, seed=1).choices[0].message
    if message.tool_calls is None:
        assert message.content in ("true", "false")
    else:
        _check(message.tool_calls)


def test_parse_with_a_pydantic_tool(client: openai.OpenAI) -> None:
    answer = client.chat.completions.parse(
        model="tiny",
        messages=_QUESTION,
        tools=[openai.pydantic_function_tool(Weather)],
        tool_choice={"type": "function", "function": {"name": "Weather"}},
        seed=2,
        max_tokens=300,
    )
    (call,) = answer.choices[0].message.tool_calls or []
    assert isinstance(call.function.parsed_arguments, Weather)


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({"tool_choice": {"type": "function", "function": {"name": "other"}}}, "tool_choice", "'other'"),
        ({"tool_choice": "sometimes"}, "tool_choice", "send none, auto, required"),
        ({"tools": [_TIME, _TIME]}, "tools", "one name"),
        ({"tools": [{"type": "custom", "custom": {"name": "x"}}]}, "tools.0.type", "'function'"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools.0.function.name", "pattern"),
        (
            {
                "tools": [{"type": "function", "function": {"name": "odd", "parameters": {"not": {}}}}],
                "tool_choice": "required",
            },
            "tools",
            "the schema of odd cannot be enforced",
        ),
        ({"messages": [{"role": "tool", "tool_call_id": "x", "content": "y"}]}, "messages.0.tool_call_id", "no call"),
        (
            {
                "messages": [
                    {
                        "role": "assistant",
                        "tool_calls": [
                            {"id": "1", "type": "function", "function": {"name": "get_time", "arguments": "{"}}
                        ],
                    },
                    *_QUESTION,
                ]
            },
            "messages.0.tool_calls.0.function.arguments",
            "no JSON object",
        ),
    ],
)
def test_what_does_not_fit_is_refused_by_name(
    client: openai.OpenAI, fields: dict[str, Any], param: str, words: str
) -> None:
    with pytest.raises(openai.BadRequestError) as refusal:
        _ask(client, **fields)
    assert refusal.value.param == param
    assert words in refusal.value.message


@pytest.mark.model
def test_the_sample_model_calls_a_tool(sample_console: Console) -> None:
    with (
        serve(build_app(sample_console)) as url,
        openai.OpenAI(base_url=f"{url}/v1", api_key="unused", max_retries=0) as client,
    ):
        choice = _ask(client, model=SAMPLE_NAME, tool_choice=_NAMED, temperature=0).choices[0]
    assert choice.finish_reason == "tool_calls"
    _check(choice.message.tool_calls)
