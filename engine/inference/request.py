"""What a caller asks for, and what comes back, as plain data.

Nothing here knows about torch. A request's running state lives on `Sequence` (sequence.py); this module is what
crosses the border between callers and the engine.
"""

from __future__ import annotations

import math
import random
import re
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from engine.errors import (
    ConsoleError,
    DeadlineError,
    InstanceNotReadyError,
    InvalidRequestError,
    QueueTimeoutError,
    WorkerDiedError,
)
from engine.inference.images import Content, ImagePart, check_num_images
from engine.inference.tools import CallPiece, JsonSchema, ToolCall, ToolUse, is_text

# The source of an instance's own warm-up, which no store keeps.
WARM_UP = "warmup"
MAX_STOP_STRINGS = 16
MAX_TOP_LOGPROBS = 20
MAX_SEED = 2**63 - 1
MAX_PRIORITY = 10
MAX_REQUEST_ID_LENGTH = 128
_REQUEST_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]*")


class FinishReason(StrEnum):
    """Why an answer ended."""

    STOP = "stop"
    LENGTH = "length"
    CANCELLED = "cancelled"
    DEADLINE = "deadline"
    QUEUE_TIMEOUT = "queue_timeout"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How the next token is chosen. `check` refuses what cannot be honoured.

    Order of application, on the logits of one position: repetition penalty (prompt and answer so far), presence
    and frequency penalty (answer so far), logit bias, temperature, top-k, top-p, min-p. Temperature 0 takes the
    most likely token and ignores the seed. Log-probabilities are those of the model before any of this.

    Attributes:
        max_tokens: None lets the engine's default decide.
        top_k: 0 keeps all tokens.
        seed: None has the engine draw one; the answer reports it.
        top_logprobs: None for no log-probabilities, else how many alternatives per token (0-20).
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    seed: int | None = None
    stop: tuple[str, ...] = ()
    max_tokens: int | None = None
    top_logprobs: int | None = None

    @property
    def has_penalties(self) -> bool:
        """Whether tokens count that were written before."""
        return self.repetition_penalty != 1.0 or bool(self.presence_penalty or self.frequency_penalty)

    def seed_or_drawn(self) -> int:
        """The seed, or one that is drawn anew."""
        return self.seed if self.seed is not None else random.SystemRandom().getrandbits(31)

    def check(self, vocab_size: int | None = None) -> None:
        """Raise InvalidRequestError naming the first field out of bounds."""
        _bound("temperature", self.temperature, 0.0, 2.0)
        _bound("top_p", self.top_p, 0.0, 1.0, open_low=True)
        _bound("top_k", self.top_k, 0, math.inf)
        _bound("min_p", self.min_p, 0.0, 1.0)
        _bound("repetition_penalty", self.repetition_penalty, 0.01, 10.0)
        _bound("presence_penalty", self.presence_penalty, -2.0, 2.0)
        _bound("frequency_penalty", self.frequency_penalty, -2.0, 2.0)
        if self.seed is not None:
            _bound("seed", self.seed, 0, MAX_SEED)
        if self.max_tokens is not None:
            _bound("max_tokens", self.max_tokens, 1, math.inf)
        if self.top_logprobs is not None:
            _bound("top_logprobs", self.top_logprobs, 0, MAX_TOP_LOGPROBS)
        self._check_stop()
        self._check_bias(vocab_size)

    def _check_stop(self) -> None:
        if len(self.stop) > MAX_STOP_STRINGS:
            raise InvalidRequestError(
                f"stop has {len(self.stop)} strings, at most {MAX_STOP_STRINGS} are allowed: send fewer",
                "stop",
            )
        if "" in self.stop:
            raise InvalidRequestError("stop contains an empty string, which would end every answer", "stop")

    def _check_bias(self, vocab_size: int | None) -> None:
        for token_id, bias in self.logit_bias.items():
            if token_id < 0 or (vocab_size is not None and token_id >= vocab_size):
                highest = "" if vocab_size is None else f" to {vocab_size - 1}"
                raise InvalidRequestError(
                    f"logit_bias names token {token_id}; the model's ids run from 0{highest}", "logit_bias"
                )
            _bound("logit_bias", bias, -100.0, 100.0)


def _bound(name: str, value: float, low: float, high: float, *, open_low: bool = False) -> None:
    """NaN fails every comparison, so it is refused too."""
    inside = (low < value if open_low else low <= value) and value <= high
    if not inside:
        lower = f"above {_show(low)}" if open_low else f"at least {_show(low)}"
        upper = "" if high == math.inf else f" and at most {_show(high)}"
        raise InvalidRequestError(f"{name} is {_show(value)}; it must be {lower}{upper}", name)


def _show(value: float) -> str:
    """Whole numbers digit by digit: a seed may be too long for a float."""
    return str(value) if isinstance(value, int) else f"{value:g}"


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation as the chat template sees it.

    Attributes:
        content: text; or texts and pictures in their order, which only a user's turn may have.
        tool_calls: what an assistant's turn asks for.
        tool_call_id: which of those the turn of a tool answers; `name` is then the tool's.
    """

    role: str
    content: Content
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    name: str | None = None

    @property
    def text(self) -> str:
        """The content without its pictures."""
        return self._written(lambda _image: "")

    @property
    def images(self) -> tuple[ImagePart, ...]:
        """The pictures in it."""
        return () if isinstance(self.content, str) else tuple(p for p in self.content if isinstance(p, ImagePart))

    def shown(self) -> str:
        """The content with a word for each picture, for a person and for logs."""
        return self._written(ImagePart.shown)

    def _written(self, write: Callable[[ImagePart], str]) -> str:
        if isinstance(self.content, str):
            return self.content
        return "".join(part if isinstance(part, str) else write(part) for part in self.content)

    def texts(self) -> tuple[str, ...]:
        """All that of it which may reach the prompt, but pictures."""
        calls = (text for call in self.tool_calls for text in (call.name, call.arguments))
        return (self.text, self.name or "", *calls)

    def check_calls(self, place: str) -> None:
        """Raise InvalidRequestError for a call whose arguments are no JSON object; templates take them as one."""
        for index, call in enumerate(self.tool_calls):
            if not isinstance(call.parsed(), dict):
                raise InvalidRequestError(
                    f"the arguments of the call {call.call_id} of {call.name} are no JSON object: send one",
                    f"{place}.tool_calls.{index}.function.arguments",
                )


@dataclass(frozen=True, slots=True)
class Request:
    """One question to one model: `messages` for its chat template, or a plain `prompt` to be continued.

    Attributes:
        model: an instance's name.
        prompt: text or token ids that the answer goes on from, no template around it; `messages` is empty then.
        timeout_s: seconds from receipt after which the request ends with `deadline`; None for the engine's default.
        source: who asked, kept with the latency record ("playground", "api").
        key_id: the API key's id, by which requests take fair turns; None where there is none.
        priority: what is higher starts first, among all keys; `MAX_PRIORITY` at most, and as far below zero.
        max_queue_s: seconds from receipt after which a request that has not started ends with `queue_timeout`; None
            leaves it to the instance.
        tools: what the answer may call; None for no tools.
        constraint: what the answer's text has to be valid against, where it is no call.
        trace_parent: the caller's span as a W3C `traceparent`; None where none was sent.
        is_cacheable: an answer that was given to the same request may be given again, and this one's be kept.
    """

    model: str
    messages: tuple[Message, ...]
    sampling: SamplingParams = field(default_factory=SamplingParams)
    timeout_s: float | None = None
    source: str = "engine"
    request_id: str = field(default_factory=lambda: f"req-{uuid.uuid4().hex[:16]}")
    prompt: str | tuple[int, ...] | None = None
    key_id: str | None = None
    priority: int = 0
    max_queue_s: float | None = None
    tools: ToolUse | None = None
    constraint: JsonSchema | None = None
    trace_parent: str | None = None
    is_cacheable: bool = False

    @property
    def images(self) -> tuple[ImagePart, ...]:
        """The pictures of all its turns, in order."""
        return tuple(image for message in self.messages for image in message.images)

    def check(self) -> None:
        """Raise InvalidRequestError for a request that no model could answer."""
        if self.prompt is None:
            self._check_messages()
        else:
            check_prompt(self.prompt)
        if self.timeout_s is not None:
            _bound("timeout_s", self.timeout_s, 0.0, 86_400.0, open_low=True)
        if self.max_queue_s is not None:
            _bound("max_queue_s", self.max_queue_s, 0.0, 86_400.0, open_low=True)
        _bound("priority", self.priority, -MAX_PRIORITY, MAX_PRIORITY)
        if self.tools is not None:
            self.tools.check()
        if self.constraint is not None:
            self.constraint.check("response_format")
        self.sampling.check()

    def _check_messages(self) -> None:
        if not any(message.text.strip() or message.images for message in self.messages):
            raise InvalidRequestError("the prompt is empty: write at least one character", "messages")
        if not all(is_text(text) for message in self.messages for text in message.texts()):
            raise InvalidRequestError(
                "a message holds half a character (a lone surrogate): send whole ones", "messages"
            )
        for index, message in enumerate(self.messages):
            message.check_calls(f"messages.{index}")
        self._check_images()

    def _check_images(self) -> None:
        check_num_images(self.images)
        for message in self.messages:
            if message.images and message.role != "user":
                place = message.images[0].place
                raise InvalidRequestError(
                    f"{place} is a picture in a turn of the role {message.role}: only a user's may hold one", place
                )


def check_request_id(text: str) -> str:
    """`text` as the id of a request, as a caller gives it in the header `x-request-id`.

    Raises:
        InvalidRequestError: it is empty, too long, or has characters that do not belong into headers and logs.
    """
    if len(text) > MAX_REQUEST_ID_LENGTH:
        raise InvalidRequestError(
            f"x-request-id has {len(text)} characters, at most {MAX_REQUEST_ID_LENGTH} are allowed: send a shorter one",
            "x-request-id",
        )
    if not _REQUEST_ID.fullmatch(text):
        raise InvalidRequestError(
            f"x-request-id is {text!r}; it must start with a letter or digit and go on with those or . _ : -",
            "x-request-id",
        )
    return text


def check_prompt(prompt: str | tuple[int, ...], param: str = "prompt") -> None:
    """Raise InvalidRequestError for a prompt without text or token ids, or with half a character."""
    if not prompt:
        raise InvalidRequestError(f"{param} is empty: send at least one character or one token id", param)
    if isinstance(prompt, str) and not is_text(prompt):
        raise InvalidRequestError(f"{param} holds half a character (a lone surrogate): send whole ones", param)


@dataclass(frozen=True, slots=True)
class TokenInfo:
    """One produced token. `logprob` and `top` are None and empty unless they were asked for."""

    token_id: int
    text: str
    logprob: float | None = None
    top: tuple[tuple[int, str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Delta:
    """New text, the tokens produced since the last event, and what came of tool calls. Text can lag behind tokens: a
    half character or the possible beginning of a stop string is held back."""

    text: str
    tokens: tuple[TokenInfo, ...] = ()
    calls: tuple[CallPiece, ...] = ()


@dataclass(frozen=True, slots=True)
class Timing:
    """When things happened: seconds on the monotonic clock, None for what did not happen."""

    received_at_s: float
    received_s: float
    scheduled_s: float | None = None
    first_token_s: float | None = None
    last_token_s: float | None = None
    finished_s: float | None = None

    def with_token(self, now_s: float) -> Timing:
        """A token more, produced now."""
        first_s = self.first_token_s if self.first_token_s is not None else now_s
        # Written out, because `replace` takes several times as long and this is done for every token.
        return Timing(self.received_at_s, self.received_s, self.scheduled_s, first_s, now_s, self.finished_s)


@dataclass(frozen=True, slots=True)
class Finished:
    """The last event of every stream that began.

    Attributes:
        num_output_tokens: tokens sampled, the end-of-text token included.
        seed: the seed used, drawn by the engine where the request had none.
        error: the sentence for the user where the answer is not complete and more can be said than the reason.
        retry_after_s: after a `queue_timeout`, the seconds in which the queue may have emptied.
        num_cached_tokens: of the prompt's tokens, those that needed no computing.
    """

    request_id: str
    reason: FinishReason
    num_prompt_tokens: int
    num_output_tokens: int
    seed: int
    timing: Timing
    error: str | None = None
    retry_after_s: float | None = None
    num_cached_tokens: int = 0

    def failure(self) -> ConsoleError | None:
        """Why the answer is not complete, as the error that the API maps to a status; None when it is."""
        match self.reason:
            case FinishReason.STOP | FinishReason.LENGTH:
                return None
            case FinishReason.DEADLINE:
                return DeadlineError(self.error or "the request ran past its deadline")
            case FinishReason.QUEUE_TIMEOUT:
                return QueueTimeoutError(self.error or "the request did not start in time", self.retry_after_s)
            case FinishReason.ERROR:
                return WorkerDiedError(self.error or "the request failed")
            case FinishReason.CANCELLED:
                return InstanceNotReadyError(self.error or "the request was cancelled by the operator; send it again")


Event = Delta | Finished
