"""The bodies of `/v1/chat/completions`, and their translation to the engine's terms.

Every field that OpenAI's API has is here: honoured, accepted where it has no effect by nature, or refused by name.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, Field
from pydantic_core import PydanticCustomError

from engine.api.messages import ChatMessage, to_messages
from engine.api.response_format import ResponseFormat
from engine.api.schemas import StreamedBody, Usage
from engine.api.tools import FunctionTool, ToolCallBody, ToolChoice, read_tool_use
from engine.errors import InvalidRequestError
from engine.inference.request import MAX_SEED, Request

MAX_ANSWERS = 16
# OpenAI's own bounds.
_MAX_METADATA = 16
_MAX_METADATA_KEY = 64
_MAX_METADATA_VALUE = 512


def _refuse(value: Any) -> None:
    if value is not None:
        raise PydanticCustomError("unsupported", "this server does not support it, leave it out")


_Unsupported = Annotated[None, BeforeValidator(_refuse), Field(description="not supported; only null is taken")]


class ChatCompletionRequest(StreamedBody):
    """Fields that are not here are refused by name."""

    messages: list[ChatMessage] = Field(fail_fast=True)
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    n: int | None = Field(None, description="answers, 1 to 16; the seed counts up from one to the next")
    stream: bool | None = None
    response_format: ResponseFormat | None = None
    tools: list[FunctionTool] | None = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = Field(None, description="false: one call at most")
    metadata: dict[str, str] | None = Field(None, description="accepted; it has no effect on the answer")
    safety_identifier: str | None = Field(None, description="accepted; it has no effect on the answer")
    prompt_cache_key: str | None = Field(None, description="accepted; it has no effect on the answer")
    prompt_cache_retention: Literal["in_memory"] | None = Field(None, description="where prompts are kept in any case")
    modalities: list[Literal["text"]] | None = None
    service_tier: Literal["auto", "default"] | None = Field(None, description="there is one tier")
    store: Literal[False] | None = Field(None, description="answers are not kept")
    audio: _Unsupported = None
    function_call: _Unsupported = None
    functions: _Unsupported = None
    moderation: _Unsupported = None
    prediction: _Unsupported = None
    prompt_cache_options: _Unsupported = None
    reasoning_effort: _Unsupported = None
    verbosity: _Unsupported = None
    web_search_options: _Unsupported = None

    def to_request(self) -> Request:
        """The first answer's. Raises InvalidRequestError for what the schema alone cannot refuse."""
        self.check_stream_options(is_streamed=bool(self.stream))
        self._check_metadata()
        return Request(
            model=self.model,
            messages=to_messages(self.messages),
            sampling=self.to_sampling(self._max_tokens(), self._top_logprobs()),
            timeout_s=self.timeout_s,
            source="api",
            tools=read_tool_use(self.tools, self.tool_choice, self.parallel_tool_calls),
            constraint=None if self.response_format is None else self.response_format.to_constraint(),
        )

    def to_requests(self, request_id: str) -> list[Request]:
        """One for each of `n` answers: the seeds are `seed`, `seed` + 1, ..., from a drawn one where none was sent."""
        n = 1 if self.n is None else self.n
        if not 1 <= n <= MAX_ANSWERS:
            raise InvalidRequestError(f"n is {n}; it must be at least 1 and at most {MAX_ANSWERS}", "n")
        first = replace(self.to_request(), request_id=request_id)
        if n == 1:
            return [first]
        seed = first.sampling.seed_or_drawn()
        return [
            replace(
                first,
                request_id=f"{request_id}-{index}",
                sampling=replace(first.sampling, seed=seed + index if seed + index <= MAX_SEED else seed - index),
            )
            for index in range(n)
        ]

    def _check_metadata(self) -> None:
        pairs = self.metadata or {}
        if len(pairs) > _MAX_METADATA:
            raise InvalidRequestError(
                f"metadata has {len(pairs)} pairs, at most {_MAX_METADATA} are allowed: send fewer", "metadata"
            )
        if any(len(key) > _MAX_METADATA_KEY or len(value) > _MAX_METADATA_VALUE for key, value in pairs.items()):
            raise InvalidRequestError(
                f"metadata has a key of more than {_MAX_METADATA_KEY} letters or a value of more than "
                f"{_MAX_METADATA_VALUE}: shorten it",
                "metadata",
            )

    def _max_tokens(self) -> int | None:
        if self.max_tokens is not None and self.max_completion_tokens not in (None, self.max_tokens):
            raise InvalidRequestError(
                f"max_tokens is {self.max_tokens} and max_completion_tokens is {self.max_completion_tokens}: "
                "send one of them",
                "max_tokens",
            )
        return self.max_tokens if self.max_tokens is not None else self.max_completion_tokens

    def _top_logprobs(self) -> int | None:
        if self.top_logprobs is not None and not self.logprobs:
            raise InvalidRequestError("top_logprobs is only allowed with logprobs: true", "top_logprobs")
        return (self.top_logprobs or 0) if self.logprobs else None


class AnswerMessage(BaseModel):
    role: Literal["assistant"] = "assistant"
    content: str | None = Field(description="null where the answer is calls alone")
    refusal: None = None
    tool_calls: list[ToolCallBody] | None = Field(None, exclude_if=lambda calls: calls is None)


class Choice(BaseModel):
    index: int
    message: AnswerMessage
    logprobs: dict[str, Any] | None = None
    finish_reason: Literal["stop", "length", "tool_calls"]


class ChatCompletion(BaseModel):
    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    usage: Usage
    seed: int = Field(description="the first answer's; send it again to get the same answers")
