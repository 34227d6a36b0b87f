from __future__ import annotations

from engine.inference.calls.plain import write_plainly
from engine.inference.request import Message
from engine.inference.tools import Tool, ToolCall

_TOOL = Tool("add", "Adds.", {"type": "object", "properties": {"x": {"type": "integer"}}})


def test_without_tools_a_conversation_stays_as_it_is() -> None:
    messages = [Message("system", "Be kind."), Message("user", "Hi", name="ann")]
    assert write_plainly(messages, []) == [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Hi"},
    ]


def test_tools_are_explained_in_the_system_message() -> None:
    (system, user) = write_plainly([Message("system", "Be kind."), Message("user", "Hi")], [_TOOL])
    assert system["content"].startswith("Be kind.\n\n")
    assert '{"name": "add", "description": "Adds.", "parameters": {"type": "object"' in system["content"]
    assert '<tool_call>\n{"name": "...", "arguments": {...}}\n</tool_call>' in system["content"]
    assert user == {"role": "user", "content": "Hi"}


def test_or_in_one_of_their_own() -> None:
    turns = write_plainly([Message("user", "Hi")], [_TOOL])
    assert [turn["role"] for turn in turns] == ["system", "user"]


def test_calls_and_results_become_text() -> None:
    calls = (ToolCall("1", "add", '{"x": 1}'), ToolCall("2", "add", '{"x": 2}'))
    messages = [
        Message("user", "Hi"),
        Message("assistant", "I add.", calls),
        Message("tool", "3", tool_call_id="1", name="add"),
        Message("tool", "4", tool_call_id="2", name="add"),
        Message("user", "Thanks"),
    ]
    assert [(turn["role"], turn["content"]) for turn in write_plainly(messages, [])] == [
        ("user", "Hi"),
        (
            "assistant",
            'I add.\n<tool_call>\n{"name": "add", "arguments": {"x": 1}}\n</tool_call>\n'
            '<tool_call>\n{"name": "add", "arguments": {"x": 2}}\n</tool_call>',
        ),
        ("user", "<tool_response>\n3\n</tool_response>\n<tool_response>\n4\n</tool_response>"),
        ("user", "Thanks"),
    ]
