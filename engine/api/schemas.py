"""What the bodies of several endpoints have in common, in OpenAI's terms, and its translation to the engine's.

A field that cannot be honoured is refused by name (`extra="forbid"`, and `Literal` where one value can).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from engine.errors import InvalidRequestError
from engine.inference.request import Finished, SamplingParams
from engine.inference.tools import is_text

# OpenAI's bound of messages, here of every list and object but those of tokens.
MAX_ITEMS = 2048
MAX_FIELDS = 128

# Fields of a body that go to `SamplingParams` by name; what is null there is left to its defaults.
_NUMBERS = (
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "repetition_penalty",
    "presence_penalty",
    "frequency_penalty",
)


def _check_text(text: str) -> str:
    if not is_text(text):
        raise PydanticCustomError("half_character", "it holds half a character (a lone surrogate): send whole ones")
    return text


def _check_json(value: dict[str, Any]) -> dict[str, Any]:
    """What Python reads, it cannot always write: `NaN` is no JSON."""
    try:
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except ValueError as error:
        raise PydanticCustomError(
            "no_json", "it holds NaN, Infinity or half a character (a lone surrogate), which JSON has not: send none"
        ) from error
    return value


# What comes back in answers, or is kept, has to be such that it can be written.
WholeText = Annotated[str, AfterValidator(_check_text)]
JsonObject = Annotated[dict[str, Any], AfterValidator(_check_json)]


def in_one_sentence(kind: str, sentence: str) -> WrapValidator:
    """For a field of several shapes: one sentence instead of a finding for each of them."""

    def validate(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
        try:
            return handler(value)
        except ValidationError as error:
            raise PydanticCustomError(kind, sentence) from error

    return WrapValidator(validate)


class Body(BaseModel):
    """A part of a body. Of each list and each object in it only so much is looked at: every item that is wrong costs a
    kilobyte, and a body may hold millions."""

    model_config = ConfigDict(extra="forbid")
    long_fields: ClassVar[frozenset[str]] = frozenset()
    """Those that may have more than `MAX_ITEMS`."""

    @model_validator(mode="before")
    @classmethod
    def _bound(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        if len(data) > MAX_FIELDS:
            raise InvalidRequestError(f"an object has {len(data):,} fields, at most {MAX_FIELDS} are read: send fewer")
        for name in data.keys() & cls.model_fields.keys() - cls.long_fields:
            num_items = len(data[name]) if isinstance(data[name], (list, dict)) else 0
            if num_items > MAX_ITEMS:
                raise InvalidRequestError(
                    f"{name} has {num_items:,} items, at most {MAX_ITEMS:,} are read: send fewer", name
                )
        return data


class StreamOptions(Body):
    include_usage: bool = False
    include_obfuscation: Literal[False] | None = Field(None, description="this server adds no padding to events")


class SamplingBody(Body):
    """The fields that every endpoint which writes text has."""

    model: WholeText
    temperature: float | None = Field(None, description="1 where left out")
    top_p: float | None = Field(None, description="1 where left out")
    top_k: int | None = Field(None, description="0, or left out, keeps all tokens")
    min_p: float | None = Field(None, description="0 where left out")
    repetition_penalty: float | None = Field(None, description="1 where left out")
    presence_penalty: float | None = Field(None, description="0 where left out")
    frequency_penalty: float | None = Field(None, description="0 where left out")
    logit_bias: dict[str, float] | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    timeout_s: float | None = Field(None, description="deadline in seconds from receipt")
    user: WholeText | None = Field(None, description="accepted; it has no effect on the answer")

    def to_sampling(self, max_tokens: int | None, top_logprobs: int | None) -> SamplingParams:
        """Raises InvalidRequestError for what the schema alone cannot refuse."""
        given = {name: getattr(self, name) for name in _NUMBERS if getattr(self, name) is not None}
        return SamplingParams(
            **given,
            logit_bias=_parse_bias(self.logit_bias or {}),
            seed=self.seed,
            stop=(self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ()),
            max_tokens=max_tokens,
            top_logprobs=top_logprobs,
        )


class StreamedBody(SamplingBody):
    """The fields of the endpoints that stream chunks."""

    stream_options: StreamOptions | None = None

    @property
    def has_usage_event(self) -> bool:
        """The stream ends with what it took."""
        return self.stream_options is not None and self.stream_options.include_usage

    def check_stream_options(self, *, is_streamed: bool) -> None:
        """Raise InvalidRequestError where there are options and no stream."""
        if self.stream_options is not None and not is_streamed:
            raise InvalidRequestError("stream_options is only allowed with stream: true", "stream_options")


def _parse_bias(bias: dict[str, float]) -> dict[int, float]:
    try:
        return {int(token_id): value for token_id, value in bias.items()}
    except ValueError as error:
        raise InvalidRequestError(f"logit_bias has a key that is not a token id: {error}", "logit_bias") from error


class PromptTokensDetails(BaseModel):
    cached_tokens: int = Field(description="those whose keys and values were kept of an earlier prompt")


class Usage(BaseModel):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails

    @classmethod
    def of(cls, answers: Iterable[Finished], num_each: int | None = None) -> Usage:
        """What the answers took, a prompt counted once: there are `num_each` answers to each, all where that is None.
        Of a prompt that ran several times, what was kept is what it was for the first of them."""
        answers = tuple(answers)
        firsts = answers[:1] if num_each is None else answers[::num_each]
        prompt = sum(finished.num_prompt_tokens for finished in firsts)
        output = sum(finished.num_output_tokens for finished in answers)
        details = PromptTokensDetails(cached_tokens=sum(finished.num_cached_tokens for finished in firsts))
        return cls(
            prompt_tokens=prompt,
            completion_tokens=output,
            total_tokens=prompt + output,
            prompt_tokens_details=details,
        )


class ModelCard(BaseModel):
    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "autoglm-console"


class ModelList(BaseModel):
    object: Literal["list"] = "list"
    data: list[ModelCard]
