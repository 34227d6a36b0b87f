"""The bodies of `/v1/completions`, and their translation to the engine's terms."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

from pydantic import BaseModel, Field

from engine.api.prompts import Prompts, split_prompts
from engine.api.schemas import StreamedBody, Usage
from engine.errors import InvalidRequestError
from engine.inference.request import Request

# OpenAI's own bounds and default.
MAX_ANSWERS = 128
_MAX_LOGPROBS = 5
_DEFAULT_MAX_TOKENS = 16


class CompletionRequest(StreamedBody):
    """Fields that are not here are refused by name."""

    prompt: Prompts
    max_tokens: int | None = Field(_DEFAULT_MAX_TOKENS, description="null lets the server's default decide")
    n: int = Field(1, description="answers to each prompt")
    best_of: int | None = Field(None, description="n or nothing: no answers are generated to be thrown away")
    echo: bool = Field(False, description="put the prompt before its answer; not together with logprobs")
    suffix: str | None = Field(None, description="not supported: the model only continues a prompt")
    logprobs: int | None = Field(None, description="of how many of the likeliest tokens, 0 to 5")
    stream: bool = False
    long_fields = frozenset({"prompt"})

    def to_requests(self, request_id: str) -> list[Request]:
        """One request for each answer, prompt by prompt. A seed counts up with the answers to one prompt, which
        would else be the same n times. Raises InvalidRequestError for what the schema alone cannot refuse."""
        self._check()
        prompts = split_prompts(self.prompt)
        num_answers = len(prompts) * self.n
        if num_answers > MAX_ANSWERS:
            raise InvalidRequestError(
                f"{len(prompts)} prompts with n = {self.n} ask for {num_answers} answers, at most {MAX_ANSWERS} are "
                "allowed in one request: send fewer",
                "n" if self.n > 1 else "prompt",
            )
        ids = [request_id] if num_answers == 1 else [f"{request_id}-{index}" for index in range(num_answers)]
        sampling = self.to_sampling(self.max_tokens, self.logprobs)
        return [
            Request(
                model=self.model,
                messages=(),
                sampling=sampling if self.seed is None else replace(sampling, seed=self.seed + choice),
                timeout_s=self.timeout_s,
                source="api",
                request_id=ids[place * self.n + choice],
                prompt=prompt,
            )
            for place, prompt in enumerate(prompts)
            for choice in range(self.n)
        ]

    def _check(self) -> None:
        if self.suffix is not None:
            raise InvalidRequestError("suffix is not supported, the model only continues a prompt: drop it", "suffix")
        if not 1 <= self.n <= MAX_ANSWERS:
            raise InvalidRequestError(f"n is {self.n}; it must be at least 1 and at most {MAX_ANSWERS}", "n")
        if self.best_of not in (None, self.n):
            raise InvalidRequestError(f"best_of is {self.best_of}; it must be n ({self.n}), or left out", "best_of")
        if self.logprobs is not None and not 0 <= self.logprobs <= _MAX_LOGPROBS:
            raise InvalidRequestError(
                f"logprobs is {self.logprobs}; it must be at least 0 and at most {_MAX_LOGPROBS}", "logprobs"
            )
        if self.echo and self.logprobs is not None:
            raise InvalidRequestError("echo is not supported together with logprobs: send one of them", "echo")
        self.check_stream_options(is_streamed=self.stream)


class CompletionChoice(BaseModel):
    index: int
    text: str
    logprobs: dict[str, Any] | None
    finish_reason: str
    seed: int = Field(description="the seed used; with n = 1 send it again to get the same answer")


class Completion(BaseModel):
    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: Usage
