from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from engine.errors import InvalidRequestError
from engine.inference.tools import MAX_SCHEMA_DEPTH, CallPiece, JsonSchema, Tool, ToolCall, ToolUse, join_pieces

_TOOLS = (Tool("a"), Tool("b"))


def test_pieces_make_calls() -> None:
    pieces = [
        CallPiece(0, "", "1", "a"),
        CallPiece(0, '{"x"'),
        CallPiece(0, ": 1}"),
        CallPiece(1, "{}", "2", "b"),
    ]
    assert join_pieces(pieces) == (ToolCall("1", "a", '{"x": 1}'), ToolCall("2", "b", "{}"))
    assert join_pieces([]) == ()


@pytest.mark.parametrize(
    ("use", "names", "max_calls"),
    [
        (ToolUse(_TOOLS), ["a", "b"], None),
        (ToolUse(_TOOLS, is_parallel=False), ["a", "b"], 1),
        (ToolUse(_TOOLS, is_required=True, only="b"), ["b"], 1),
    ],
)
def test_what_may_be_called(use: ToolUse, names: list[str], max_calls: int | None) -> None:
    assert ([tool.name for tool in use.callable], use.max_calls) == (names, max_calls)


@pytest.mark.parametrize(
    ("use", "param", "words"),
    [
        (ToolUse((Tool("a"), Tool("a"))), "tools", "one name"),
        (ToolUse(_TOOLS, only="c"), "tool_choice", "'c', which is none of a, b"),
        (ToolUse((Tool("a", "half \ud800"),)), "tools", "lone surrogate"),
    ],
)
def test_tools_that_no_model_could_be_given(use: ToolUse, param: str, words: str) -> None:
    with pytest.raises(InvalidRequestError, match=words) as refusal:
        use.check()
    assert refusal.value.param == param


@pytest.mark.parametrize("wrap", [lambda node: {"items": node}, lambda node: [node]])
def test_a_schema_nested_too_deep_is_refused(wrap: Callable[[Any], Any]) -> None:
    node: Any = {}
    for _ in range(MAX_SCHEMA_DEPTH - 2):
        node = wrap(node)
    JsonSchema({"not": node}).check("response_format")
    with pytest.raises(InvalidRequestError, match="deeper than 64 levels") as refusal:
        JsonSchema({"not": wrap(wrap(node))}).check("response_format")
    assert refusal.value.param == "response_format"
    with pytest.raises(InvalidRequestError, match="tools has a schema"):
        ToolUse((Tool("a", parameters={"not": wrap(wrap(node))}),)).check()


def test_arguments_are_always_an_object() -> None:
    assert Tool("a", parameters={"properties": {}}).arguments_schema().schema == {"type": "object", "properties": {}}
    assert Tool("a").arguments_schema().schema["additionalProperties"] is False


@pytest.mark.parametrize(("arguments", "value"), [('{"x": 1}', {"x": 1}), ("{", None), ("", None)])
def test_arguments_that_are_no_json_are_none(arguments: str, value: object) -> None:
    assert ToolCall("1", "a", arguments).parsed() == value
