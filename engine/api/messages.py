"""The conversation in the body of a chat request, as OpenAI has it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from engine.api.schemas import Body
from engine.api.tools import ToolCallBody
from engine.errors import InvalidRequestError
from engine.inference.request import Message

# What an answer has and a client may send back as it came; nothing but null is taken.
_NULL_IN_ANSWERS = ("audio", "annotations", "function_call")


class TextPart(Body):
    type: Literal["text"]
    text: str


class ChatMessage(Body):
    """One turn. An assistant's may hold tool calls, and a tool's says which of them it answers."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[TextPart] | None = None
    name: str | None = Field(None, description="given to the model's chat template, which may not use it")
    refusal: str | None = Field(None, description="an assistant's, taken as its content")
    tool_calls: list[ToolCallBody] | None = Field(None, description="an assistant's")
    tool_call_id: str | None = Field(None, description="a tool's")

    @model_validator(mode="before")
    @classmethod
    def _drop_nulls_of_answers(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        return {key: value for key, value in data.items() if value is not None or key not in _NULL_IN_ANSWERS}

    @model_validator(mode="after")
    def _check_role(self) -> Self:
        if self.tool_calls is not None and self.role != "assistant":
            raise PydanticCustomError("role", "tool_calls belong to the role assistant")
        if (self.tool_call_id is not None) != (self.role == "tool"):
            raise PydanticCustomError("role", "tool_call_id belongs to the role tool, which needs it")
        if self.content is None and not self.tool_calls and self.refusal is None:
            raise PydanticCustomError("content", "content is missing, and there are no tool_calls")
        return self

    def to_message(self) -> Message:
        """With several text parts joined, and OpenAI's `developer` as the `system` that templates know."""
        content = self.content if self.content is not None else self.refusal or ""
        return Message(
            "system" if self.role == "developer" else self.role,
            content if isinstance(content, str) else "".join(part.text for part in content),
            tuple(call.to_call() for call in self.tool_calls or ()),
            self.tool_call_id,
            self.name,
        )


def to_messages(given: Iterable[ChatMessage]) -> tuple[Message, ...]:
    """All turns in the engine's terms; a tool's gets the name of the function that was called.

    Raises:
        InvalidRequestError: a tool's turn answers no call before it.
    """
    messages: list[Message] = []
    called: dict[str, str] = {}
    for index, turn in enumerate(given):
        message = turn.to_message()
        called |= {call.call_id: call.name for call in message.tool_calls}
        if message.tool_call_id is not None:
            if message.tool_call_id not in called:
                raise InvalidRequestError(
                    f"tool_call_id {message.tool_call_id!r} is of no call in the turns before: send the assistant's "
                    "turn with its tool_calls first",
                    f"messages.{index}.tool_call_id",
                )
            name = message.name or called[message.tool_call_id]
            message = Message(message.role, message.content, (), message.tool_call_id, name)
        messages.append(message)
    return tuple(messages)
