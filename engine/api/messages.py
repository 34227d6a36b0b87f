"""The conversation in the body of a chat request, as OpenAI has it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from engine.api.schemas import Body
from engine.api.tools import ToolCallBody
from engine.errors import InvalidRequestError
from engine.inference.images import Content, Detail, ImagePart, read_data_url
from engine.inference.request import Message

# What an answer has and a client may send back as it came; nothing but null is taken.
_NULL_IN_ANSWERS = ("audio", "annotations", "function_call")


class ImageUrl(Body):
    url: str = Field(description="data:image/png;base64,... of a PNG, JPEG or WebP file; nothing is fetched")
    detail: Detail | None = Field(None, description="low: the picture within 512 x 512 pixels; auto, high: as it is")


class ContentPart(Body):
    """A text or a picture."""

    type: Literal["text", "image_url"]
    text: str | None = None
    image_url: ImageUrl | None = None

    @model_validator(mode="after")
    def _check_kind(self) -> Self:
        other = "image_url" if self.type == "text" else "text"
        if getattr(self, self.type) is None or getattr(self, other) is not None:
            raise PydanticCustomError("part", "a part of type {kind} has {kind} and nothing else", {"kind": self.type})
        return self

    def to_content(self, place: str) -> str | ImagePart:
        """In the engine's terms. Raises InvalidRequestError naming `place` for what is no picture that is taken."""
        if self.image_url is None:
            return self.text or ""
        return read_data_url(self.image_url.url, self.image_url.detail, f"{place}.image_url")


def join_parts(parts: Iterable[str | ImagePart]) -> Content:
    """A content: plain text, unless there are pictures in it."""
    parts = tuple(parts)
    if any(isinstance(part, ImagePart) for part in parts):
        return parts
    return "".join(part for part in parts if isinstance(part, str))


def _as_parts(given: Any) -> Any:
    if isinstance(given, str):
        return [{"type": "text", "text": given}]
    if given is not None and not isinstance(given, list):
        raise PydanticCustomError("content", "send a text, or a list of parts")
    return given


_Parts = Annotated[
    list[ContentPart] | None,
    BeforeValidator(_as_parts, json_schema_input_type=str | list[ContentPart] | None),
]


class ChatMessage(Body):
    """One turn. An assistant's may hold tool calls, and a tool's says which of them it answers."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: _Parts = None
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

    def to_message(self, place: str) -> Message:
        """With parts that are all text joined, and OpenAI's `developer` as the `system` that templates know; `place` is
        where it stands in the body."""
        content: Content = self.refusal or ""
        if self.content is not None:
            content = join_parts(part.to_content(f"{place}.content.{at}") for at, part in enumerate(self.content))
        return Message(
            "system" if self.role == "developer" else self.role,
            content,
            tuple(call.to_call() for call in self.tool_calls or ()),
            self.tool_call_id,
            self.name,
        )


def to_messages(given: Iterable[ChatMessage]) -> tuple[Message, ...]:
    """All turns in the engine's terms; a tool's gets the name of the function that was called.

    Raises:
        InvalidRequestError: a tool's turn answers no call before it, or a picture is none that is taken.
    """
    messages: list[Message] = []
    called: dict[str, str] = {}
    for index, turn in enumerate(given):
        message = turn.to_message(f"messages.{index}")
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
