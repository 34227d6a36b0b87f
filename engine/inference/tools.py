"""Tools and the calls to them, as plain data: what a caller offers, and what an answer asks for."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from engine.errors import InvalidRequestError

MAX_SCHEMA_DEPTH = 64
_NO_PARAMETERS: Mapping[str, Any] = {"type": "object", "properties": {}, "additionalProperties": False}


@dataclass(frozen=True, slots=True)
class JsonSchema:
    """A JSON schema that a text has to be valid against.

    Attributes:
        is_strict: every keyword counts, and one that cannot be guaranteed is refused. Otherwise such keywords are
            passed over, and only the others are guaranteed.
    """

    schema: Mapping[str, Any]
    is_strict: bool = True

    def check(self, param: str) -> None:
        """Raise InvalidRequestError, naming `param`, for a schema nested deeper than can be followed."""
        level: list[Any] = [self.schema]
        for _ in range(MAX_SCHEMA_DEPTH):
            level = [inner for node in level for inner in _inner_nodes(node)]
            if not level:
                return
        raise InvalidRequestError(
            f"{param} has a schema that is nested deeper than {MAX_SCHEMA_DEPTH} levels: move parts of it to $defs",
            param,
        )


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that the model may ask for.

    Attributes:
        parameters: the JSON schema of its arguments, always an object.
        is_strict: calls are held to the schema also where the model is free to call or not.
        is_lenient: schema keywords that cannot be guaranteed are passed over.
    """

    name: str
    description: str = ""
    parameters: Mapping[str, Any] = field(default_factory=lambda: _NO_PARAMETERS)
    is_strict: bool = False
    is_lenient: bool = False

    def arguments_schema(self) -> JsonSchema:
        """What its arguments have to be valid against."""
        return JsonSchema({**self.parameters, "type": "object"}, not self.is_lenient)

    def definition(self) -> dict[str, Any]:
        """In the shape that chat templates take."""
        function = {"name": self.name, "description": self.description, "parameters": dict(self.parameters)}
        return {"type": "function", "function": function}


@dataclass(frozen=True, slots=True)
class ToolUse:
    """The tools of a request and how they may be used.

    Attributes:
        is_required: the answer is a call, or several.
        only: of all tools the one to be called, exactly once; implies `is_required`.
        is_parallel: one answer may hold several calls.
    """

    tools: tuple[Tool, ...]
    is_required: bool = False
    only: str | None = None
    is_parallel: bool = True

    def check(self) -> None:
        """Raise InvalidRequestError for tools that no model could be given."""
        for tool in self.tools:
            tool.arguments_schema().check("tools")
        names = [tool.name for tool in self.tools]
        if len(set(names)) < len(names):
            raise InvalidRequestError("tools has two functions of one name: give each its own", "tools")
        if self.only is not None and self.only not in names:
            known = ", ".join(names)
            raise InvalidRequestError(f"tool_choice names {self.only!r}, which is none of {known}", "tool_choice")
        if not is_text(json.dumps([tool.definition() for tool in self.tools], ensure_ascii=False)):
            raise InvalidRequestError("tools hold half a character (a lone surrogate): send whole ones", "tools")

    @property
    def callable(self) -> tuple[Tool, ...]:
        """The tools that the answer may call."""
        return tuple(tool for tool in self.tools if self.only in (None, tool.name))

    @property
    def max_calls(self) -> int | None:
        """None for any number."""
        return None if self.is_parallel and self.only is None else 1


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call that an answer asks for; `arguments` is the text of a JSON object."""

    call_id: str
    name: str
    arguments: str

    def parsed(self) -> Any:
        """The arguments as a value; None where they are no JSON."""
        try:
            return json.loads(self.arguments)
        except (ValueError, RecursionError):
            return None


@dataclass(frozen=True, slots=True)
class CallPiece:
    """A part of a call as it arrives: the first of a call has its id and name, all together have its arguments.
    `index` counts the calls of the answer from 0."""

    index: int
    arguments: str = ""
    call_id: str | None = None
    name: str | None = None


def _inner_nodes(node: Any) -> list[Any]:
    if isinstance(node, Mapping):
        return list(node.values())
    return node if isinstance(node, list) else []


def is_text(content: str) -> bool:
    """Whether it can be written: it has no half of a surrogate pair."""
    try:
        content.encode()
    except UnicodeEncodeError:
        return False
    return True


def join_pieces(pieces: Iterable[CallPiece]) -> tuple[ToolCall, ...]:
    """The calls that the pieces of one answer make up."""
    calls: list[ToolCall] = []
    for piece in pieces:
        if piece.call_id is not None and piece.name is not None:
            calls.append(ToolCall(piece.call_id, piece.name, piece.arguments))
        else:
            begun = calls[piece.index]
            calls[piece.index] = replace(begun, arguments=begun.arguments + piece.arguments)
    return tuple(calls)
