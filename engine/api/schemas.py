"""The bodies of the API, as OpenAI's chat completions have them, and their translation to the engine's terms.

A field that cannot be honoured is refused by name (`extra="forbid"`, and `Literal` where one value can).
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from engine.errors import InvalidRequestError
from engine.inference.request import Message, Request, SamplingParams

Role = Literal["system", "developer", "user", "assistant"]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class TextPart(_Body):
    type: Literal["text"]
    text: str


class ChatMessage(_Body):
    role: Role
    content: str | list[TextPart]
    name: str | None = Field(None, description="accepted; this console's models do not use it")

    def to_message(self) -> Message:
        """With several text parts joined, and OpenAI's `developer` as the `system` that templates know."""
        text = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        return Message("system" if self.role == "developer" else self.role, text)


class StreamOptions(_Body):
    include_usage: bool = False


class ResponseFormat(_Body):
    type: Literal["text"]


class ChatCompletionRequest(_Body):
    model: str
    messages: list[ChatMessage]
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = Field(0, description="0 keeps all tokens")
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: dict[str, float] | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    logprobs: bool = False
    top_logprobs: int | None = None
    n: Literal[1] = 1
    stream: bool = False
    stream_options: StreamOptions | None = None
    response_format: ResponseFormat | None = None
    timeout_s: float | None = Field(None, description="deadline in seconds from receipt")
    user: str | None = Field(None, description="accepted; it has no effect on the answer")

    def to_request(self) -> Request:
        """Raises InvalidRequestError for what the schema alone cannot refuse."""
        if self.stream_options is not None and not self.stream:
            raise InvalidRequestError("stream_options is only allowed with stream: true", "stream_options")
        return Request(
            model=self.model,
            messages=tuple(message.to_message() for message in self.messages),
            sampling=self._sampling(),
            timeout_s=self.timeout_s,
            source="api",
        )

    def _sampling(self) -> SamplingParams:
        return SamplingParams(
            temperature=self.temperature,
            top_p=self.top_p,
            top_k=self.top_k,
            min_p=self.min_p,
            repetition_penalty=self.repetition_penalty,
            presence_penalty=self.presence_penalty,
            frequency_penalty=self.frequency_penalty,
            logit_bias=_parse_bias(self.logit_bias or {}),
            seed=self.seed,
            stop=(self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ()),
            max_tokens=self._max_tokens(),
            top_logprobs=self._top_logprobs(),
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


def _parse_bias(bias: dict[str, float]) -> dict[int, float]:
    try:
        return {int(token_id): value for token_id, value in bias.items()}
    except ValueError as error:
        raise InvalidRequestError(f"logit_bias has a key that is not a token id: {error}", "logit_bias") from error


class Usage(BaseModel):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class AnswerMessage(BaseModel):
    role: Literal["assistant"] = "assistant"
    content: str


class Choice(BaseModel):
    index: int = 0
    message: AnswerMessage
    logprobs: dict[str, Any] | None = None
    finish_reason: str


class ChatCompletion(BaseModel):
    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    usage: Usage
    seed: int = Field(description="the seed used; send it again to get the same answer")


class ModelCard(BaseModel):
    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "autoglm-console"


class ModelList(BaseModel):
    object: Literal["list"] = "list"
    data: list[ModelCard]
