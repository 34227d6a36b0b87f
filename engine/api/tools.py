"""Tools in the bodies of the API, as OpenAI has them, and their translation to the engine's terms."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from engine.api.schemas import Body, JsonObject, in_one_sentence
from engine.errors import InvalidRequestError
from engine.inference.tools import CallPiece, Tool, ToolCall, ToolUse

MAX_TOOLS = 128
_NAME = r"^[a-zA-Z0-9_-]{1,64}$"


class FunctionDefinition(Body):
    name: str = Field(pattern=_NAME)
    description: str | None = None
    parameters: JsonObject | None = Field(None, description="a JSON schema; none for a function without any")
    strict: bool | None = Field(
        None,
        description="true: a call's arguments are valid in every case. Left out: they are where the call is forced. "
        "false: as left out, and keywords of the schema that cannot be enforced are passed over",
    )

    def to_tool(self) -> Tool:
        """In the engine's terms."""
        parameters = {} if self.parameters is None else {"parameters": self.parameters}
        return Tool(
            name=self.name,
            description=self.description or "",
            is_strict=self.strict is True,
            is_lenient=self.strict is False,
            **parameters,
        )


class FunctionTool(Body):
    type: Literal["function"]
    function: FunctionDefinition


class FunctionName(Body):
    name: str


class NamedTool(Body):
    type: Literal["function"]
    function: FunctionName


class AllowedTools(Body):
    mode: Literal["auto", "required"]
    tools: list[NamedTool]


class AllowedToolsChoice(Body):
    type: Literal["allowed_tools"]
    allowed_tools: AllowedTools


ToolChoice = Annotated[
    Literal["none", "auto", "required"] | NamedTool | AllowedToolsChoice,
    in_one_sentence(
        "tool_choice",
        "send none, auto, required, a function's name as {'type': 'function', 'function': {'name': ...}}, or "
        "{'type': 'allowed_tools', ...}",
    ),
]


def read_tool_use(
    tools: list[FunctionTool] | None, choice: ToolChoice | None, parallel_tool_calls: bool | None
) -> ToolUse | None:
    """What the three fields mean together; None where the model is not to know of any tool.

    Raises:
        InvalidRequestError: names the field that does not fit the others.
    """
    if tools is None:
        if choice not in (None, "none", "auto"):
            raise InvalidRequestError("tool_choice asks for a call and there are no tools: send tools", "tool_choice")
        return None
    if not 1 <= len(tools) <= MAX_TOOLS:
        raise InvalidRequestError(f"tools has {len(tools)} functions; send at least 1 and at most {MAX_TOOLS}", "tools")
    if choice == "none":
        return None
    offered = tuple(tool.function.to_tool() for tool in tools)
    if isinstance(choice, AllowedToolsChoice):
        offered = _select(offered, [tool.function.name for tool in choice.allowed_tools.tools])
        choice = choice.allowed_tools.mode
    only = choice.function.name if isinstance(choice, NamedTool) else None
    is_required = only is not None or choice == "required"
    return ToolUse(offered, is_required, only, parallel_tool_calls is not False)


def _select(offered: tuple[Tool, ...], names: list[str]) -> tuple[Tool, ...]:
    unknown = sorted(set(names) - {tool.name for tool in offered})
    if unknown or not names:
        which = f"names {', '.join(unknown)}, not among tools" if unknown else "allows no tool"
        raise InvalidRequestError(f"tool_choice {which}: name functions that tools has", "tool_choice")
    return tuple(tool for tool in offered if tool.name in names)


class CalledFunction(Body):
    name: str = Field(pattern=_NAME)
    arguments: str = Field(description="a JSON object, as text")


class ToolCallBody(Body):
    """A call, in answers and in the conversation that is sent back."""

    id: str
    type: Literal["function"] = "function"
    function: CalledFunction

    @classmethod
    def of(cls, call: ToolCall) -> ToolCallBody:
        """From the engine's terms."""
        return cls(id=call.call_id, function=CalledFunction(name=call.name, arguments=call.arguments))

    def to_call(self) -> ToolCall:
        """In the engine's terms."""
        return ToolCall(self.id, self.function.name, self.function.arguments)


def call_delta(piece: CallPiece) -> dict[str, Any]:
    """A piece of a call in a streamed answer: id and name with the first, then arguments."""
    if piece.call_id is None:
        return {"index": piece.index, "function": {"arguments": piece.arguments}}
    function = {"name": piece.name, "arguments": piece.arguments}
    return {"index": piece.index, "id": piece.call_id, "type": "function", "function": function}
