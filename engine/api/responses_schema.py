"""The body of `/v1/responses`, and its translation to the engine's terms."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from dataclasses import replace
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator
from pydantic_core import PydanticCustomError

from engine.api.response_items import to_messages
from engine.api.schemas import Body, JsonObject, SamplingBody, WholeText
from engine.errors import InvalidRequestError
from engine.inference.images import Detail
from engine.inference.request import Request
from engine.inference.tools import JsonSchema, Tool, ToolUse

LOGPROBS = "message.output_text.logprobs"
_MAX_METADATA = 16


class ContentPart(Body):
    """A text or a picture."""

    type: Literal["input_text", "output_text", "input_image"]
    text: str | None = None
    image_url: str | None = Field(
        None, description="data:image/png;base64,... of a PNG, JPEG or WebP file; nothing is fetched"
    )
    detail: Detail | None = Field(None, description="low: the picture within 512 x 512 pixels; auto, high: as it is")
    file_id: None = Field(None, description="only null is taken: send the picture itself")
    annotations: list[dict[str, Any]] = Field([], description="accepted as they were given out")
    logprobs: list[dict[str, Any]] | None = Field(None, description="accepted as they were given out")

    @model_validator(mode="after")
    def _check_kind(self) -> Self:
        needed, other = ("image_url", "text") if self.type == "input_image" else ("text", "image_url")
        if getattr(self, needed) is None or getattr(self, other) is not None:
            raise PydanticCustomError("part", f"a part of type {self.type} has {needed} and no {other}")
        return self

    def to_part(self, kind: str) -> dict[str, Any]:
        """As it is stored and listed; texts are of `kind`."""
        if self.type != "input_image":
            return {"type": kind, "text": self.text}
        return {"type": "input_image", "image_url": self.image_url, "detail": self.detail or "auto"}


def _as_parts(given: Any) -> Any:
    return [{"type": "input_text", "text": given}] if isinstance(given, str) else given


_Content = Annotated[list[ContentPart], BeforeValidator(_as_parts, json_schema_input_type=str | list[ContentPart])]


class MessageItem(Body):
    type: Literal["message"] = "message"
    role: Literal["user", "assistant", "system", "developer"]
    content: _Content
    id: WholeText | None = None
    status: Literal["in_progress", "completed", "incomplete"] | None = None
    phase: Literal["commentary", "final_answer"] | None = Field(None, description="accepted; without effect")

    def to_item(self) -> dict[str, Any]:
        """As it is stored and listed."""
        kind = "output_text" if self.role == "assistant" else "input_text"
        parts = [part.to_part(kind) for part in self.content]
        identifier = self.id or f"msg_{uuid.uuid4().hex}"
        return {"id": identifier, "type": "message", "role": self.role, "status": "completed", "content": parts}


class FunctionCallItem(Body):
    type: Literal["function_call"]
    call_id: WholeText
    name: str
    arguments: str
    id: WholeText | None = None
    status: Literal["in_progress", "completed", "incomplete"] | None = None

    def to_item(self) -> dict[str, Any]:
        """As it is stored and listed."""
        return {**self.model_dump(), "id": self.id or f"fc_{uuid.uuid4().hex}", "status": "completed"}


class FunctionOutputItem(Body):
    type: Literal["function_call_output"]
    call_id: WholeText
    output: _Content
    id: WholeText | None = None
    status: Literal["in_progress", "completed", "incomplete"] | None = None

    @model_validator(mode="after")
    def _check_output(self) -> Self:
        if any(part.type == "input_image" for part in self.output):
            raise PydanticCustomError("output", "a function's output is text: send its picture in a user's message")
        return self

    def to_item(self) -> dict[str, Any]:
        """As it is stored and listed."""
        identifier = self.id or f"fco_{uuid.uuid4().hex}"
        output = "".join(part.text or "" for part in self.output)
        return {**self.model_dump(), "id": identifier, "output": output, "status": "completed"}


def _kind_of(item: Any) -> str:
    kind = item.get("type") if isinstance(item, dict) else getattr(item, "type", None)
    return "message" if kind is None else str(kind)


_Item = Annotated[
    Annotated[MessageItem, Tag("message")]
    | Annotated[FunctionCallItem, Tag("function_call")]
    | Annotated[FunctionOutputItem, Tag("function_call_output")],
    Discriminator(_kind_of),
]


def _as_items(given: Any) -> Any:
    return [{"role": "user", "content": given}] if isinstance(given, str) else given


_Input = Annotated[
    list[_Item], Field(fail_fast=True), BeforeValidator(_as_items, json_schema_input_type=str | list[_Item])
]


class FunctionTool(Body):
    type: Literal["function"]
    name: str = Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")
    description: str | None = None
    parameters: JsonObject | None = None
    strict: bool | None = Field(None, description="unset: strict, as far as the schema's keywords can be guaranteed")

    def to_tool(self) -> Tool:
        """In the engine's terms."""
        is_strict = self.strict is not False
        tool = Tool(self.name, self.description or "", is_strict=is_strict, is_lenient=self.strict is not True)
        return tool if self.parameters is None else replace(tool, parameters=self.parameters)


class NamedTool(Body):
    type: Literal["function"]
    name: str


class PlainFormat(Body):
    type: Literal["text", "json_object"]


class SchemaFormat(Body):
    type: Literal["json_schema"]
    name: WholeText
    schema_: JsonObject = Field(alias="schema")
    description: WholeText | None = Field(None, description="accepted; it has no effect on the answer")
    strict: bool | None = Field(
        None, description="false: keywords of the schema that cannot be enforced are passed over, not refused"
    )


class TextOptions(Body):
    format: Annotated[PlainFormat | SchemaFormat, Field(discriminator="type")] = PlainFormat(type="text")
    verbosity: Literal["medium"] | None = None

    def to_constraint(self) -> JsonSchema | None:
        """What the answer has to be valid against."""
        if isinstance(self.format, SchemaFormat):
            return JsonSchema(self.format.schema_, self.format.strict is not False)
        return JsonSchema({"type": "object"}) if self.format.type == "json_object" else None


class ResponseRequest(SamplingBody):
    """Fields that are not here are refused by name."""

    input: _Input
    instructions: str | None = Field(None, description="the first system message; not carried over to a next response")
    max_output_tokens: int | None = None
    previous_response_id: WholeText | None = None
    stream: bool = False
    store: bool = True
    background: bool = False
    metadata: dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=512)]] | None = Field(
        None, max_length=_MAX_METADATA, description="given back as it is"
    )
    text: TextOptions = TextOptions()
    tools: list[FunctionTool] = Field([])
    tool_choice: Literal["none", "auto", "required"] | NamedTool = "auto"
    parallel_tool_calls: bool = True
    include: list[Literal["message.output_text.logprobs"]] | None = None
    top_logprobs: int | None = Field(None, description=f"only with include: {LOGPROBS}")
    truncation: Literal["disabled"] | None = None
    service_tier: Literal["auto", "default"] | None = None
    prompt_cache_key: str | None = Field(None, description="accepted; without effect")
    safety_identifier: str | None = Field(None, description="accepted; without effect")

    @property
    def has_logprobs(self) -> bool:
        """Whether the answer's text comes with log-probabilities."""
        return bool(self.include)

    def check(self) -> None:
        """Raise InvalidRequestError for what the schema alone cannot refuse."""
        if self.top_logprobs is not None and not self.has_logprobs:
            raise InvalidRequestError(f"top_logprobs is only allowed with include: {LOGPROBS}", "top_logprobs")
        if self.background and not self.store:
            raise InvalidRequestError("background is only allowed with store: true, or nobody could ask", "background")
        if self.background and self.stream:
            raise InvalidRequestError("stream is not supported together with background: send one of them", "stream")
        if not self.tools and (self.tool_choice == "required" or isinstance(self.tool_choice, NamedTool)):
            raise InvalidRequestError("tool_choice asks for a call and there are no tools: send tools", "tool_choice")

    def to_request(self, request_id: str, earlier: Iterable[dict[str, Any]], items: list[dict[str, Any]]) -> Request:
        """The conversation so far (`earlier`), then this body's input as `items`."""
        return Request(
            model=self.model,
            messages=to_messages(self.instructions, tuple(earlier), items),
            sampling=self.to_sampling(self.max_output_tokens, (self.top_logprobs or 0) if self.has_logprobs else None),
            timeout_s=self.timeout_s,
            source="api",
            request_id=request_id,
            tools=self._tool_use(),
            constraint=self.text.to_constraint(),
        )

    def _tool_use(self) -> ToolUse | None:
        if not self.tools or self.tool_choice == "none":
            return None
        only = self.tool_choice.name if isinstance(self.tool_choice, NamedTool) else None
        return ToolUse(
            tuple(tool.to_tool() for tool in self.tools),
            is_required=self.tool_choice == "required" or only is not None,
            only=only,
            is_parallel=self.parallel_tool_calls,
        )
