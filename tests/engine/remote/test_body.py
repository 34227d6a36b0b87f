from __future__ import annotations

import base64

import pytest

from engine.inference.images import ImagePart, read_data_url
from engine.inference.request import Message, Request, SamplingParams
from engine.inference.tools import JsonSchema, Tool, ToolCall, ToolUse
from engine.remote.body import to_body
from tests.vision_models import picture_bytes

HELLO = (Message("user", "Hello"),)


def test_what_is_at_its_default_is_left_out_but_what_servers_differ_in() -> None:
    assert to_body(Request("far", HELLO), "there", 7) == (
        "/chat/completions",
        {
            "model": "there",
            "stream": True,
            "stream_options": {"include_usage": True},
            "temperature": 1.0,
            "top_p": 1.0,
            "seed": 7,
            "messages": [{"role": "user", "content": "Hello"}],
        },
    )


def test_every_parameter_is_sent_on() -> None:
    sampling = SamplingParams(
        temperature=0.5,
        top_p=0.9,
        top_k=40,
        min_p=0.1,
        repetition_penalty=1.1,
        presence_penalty=0.2,
        frequency_penalty=0.3,
        logit_bias={5: -1.0},
        stop=("END",),
        max_tokens=9,
        top_logprobs=2,
    )
    _, body = to_body(Request("far", HELLO, sampling), "there", 7)
    expected = {
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 40,
        "min_p": 0.1,
        "repetition_penalty": 1.1,
        "presence_penalty": 0.2,
        "frequency_penalty": 0.3,
        "logit_bias": {"5": -1.0},
        "stop": ["END"],
        "max_tokens": 9,
        "logprobs": True,
        "top_logprobs": 2,
    }
    assert expected.items() <= body.items()


@pytest.mark.parametrize(("prompt", "sent"), [("Once", "Once"), ((1, 2), [1, 2])])
def test_a_plain_prompt_goes_to_completions(prompt: str | tuple[int, ...], sent: object) -> None:
    path, body = to_body(Request("far", (), SamplingParams(top_logprobs=1), prompt=prompt), "there", 7)
    assert (path, body["prompt"], body["logprobs"]) == ("/completions", sent, 1)
    assert "messages" not in body


def test_structured_output_goes_as_response_format() -> None:
    schema = {"type": "object", "properties": {"city": {"type": "string"}}}
    _, body = to_body(Request("far", HELLO, constraint=JsonSchema(schema, is_strict=False)), "there", 7)
    assert body["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "answer", "schema": schema, "strict": False},
    }


@pytest.mark.parametrize(
    ("use", "expected"),
    [
        (ToolUse((Tool("go"),)), {"tool_choice": "auto"}),
        (
            ToolUse((Tool("go"),), is_required=True, is_parallel=False),
            {"tool_choice": "required", "parallel_tool_calls": False},
        ),
        (ToolUse((Tool("go"),), only="go"), {"tool_choice": {"type": "function", "function": {"name": "go"}}}),
    ],
)
def test_tools_and_how_they_may_be_used(use: ToolUse, expected: dict[str, object]) -> None:
    _, body = to_body(Request("far", HELLO, tools=use), "there", 7)
    assert body["tools"] == [use.tools[0].definition()]
    assert expected.items() <= body.items()


def test_a_strict_tool_and_a_history_with_calls() -> None:
    messages = (
        *HELLO,
        Message("assistant", "", (ToolCall("c1", "go", "{}"),)),
        Message("tool", "done", tool_call_id="c1", name="go"),
    )
    _, body = to_body(Request("far", messages, tools=ToolUse((Tool("go", is_strict=True),))), "there", 7)
    assert body["tools"][0]["function"]["strict"] is True
    assert body["messages"][1]["tool_calls"] == [
        {"id": "c1", "type": "function", "function": {"name": "go", "arguments": "{}"}}
    ]
    assert body["messages"][2] == {"role": "tool", "content": "done", "tool_call_id": "c1", "name": "go"}


def test_pictures_are_sent_on_as_they_came() -> None:
    data = picture_bytes()
    url = f"data:image/png;base64,{base64.b64encode(data).decode()}"
    part = read_data_url(url, "low", "messages.0.content.1.image_url")
    _, body = to_body(Request("far", (Message("user", ("Look: ", part, ImagePart(data))),)), "there", 7)
    assert body["messages"][0]["content"] == [
        {"type": "text", "text": "Look: "},
        {"type": "image_url", "image_url": {"url": url, "detail": "low"}},
        {"type": "image_url", "image_url": {"url": url}},
    ]
