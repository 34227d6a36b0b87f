"""What a caller asks for, and what comes back, as plain data.

Nothing here knows about torch. A request's running state lives on `Sequence` (sequence.py); this module is what
crosses the border between callers and the engine.
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from engine.errors import InvalidRequestError

# The source of an instance's own warm-up, which no store keeps.
WARM_UP = "warmup"
MAX_STOP_STRINGS = 16
MAX_TOP_LOGPROBS = 20
MAX_SEED = 2**63 - 1


class FinishReason(StrEnum):
    """Why an answer ended."""

    STOP = "stop"
    LENGTH = "length"
    CANCELLED = "cancelled"
    DEADLINE = "deadline"
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
    """One turn of a conversation as the chat template sees it."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Request:
    """One question to one model.

    Attributes:
        model: an instance's name.
        timeout_s: seconds from receipt after which the request ends with `deadline`; None for the engine's default.
        source: who asked, kept with the latency record ("playground", "api").
    """

    model: str
    messages: tuple[Message, ...]
    sampling: SamplingParams = field(default_factory=SamplingParams)
    timeout_s: float | None = None
    source: str = "engine"
    request_id: str = field(default_factory=lambda: f"req-{uuid.uuid4().hex[:16]}")

    def check(self) -> None:
        """Raise InvalidRequestError for a request that no model could answer."""
        if not self.messages or not any(message.content.strip() for message in self.messages):
            raise InvalidRequestError("the prompt is empty: write at least one character", "messages")
        if not all(_is_text(message.content) for message in self.messages):
            raise InvalidRequestError(
                "a message holds half a character (a lone surrogate): send whole ones", "messages"
            )
        if self.timeout_s is not None:
            _bound("timeout_s", self.timeout_s, 0.0, 86_400.0, open_low=True)
        self.sampling.check()


def _is_text(content: str) -> bool:
    try:
        content.encode()
    except UnicodeEncodeError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class TokenInfo:
    """One produced token. `logprob` and `top` are None and empty unless they were asked for."""

    token_id: int
    text: str
    logprob: float | None = None
    top: tuple[tuple[int, str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Delta:
    """New text, and the tokens produced since the last event. Text can lag behind tokens: a half character or
    the possible beginning of a stop string is held back."""

    text: str
    tokens: tuple[TokenInfo, ...] = ()


@dataclass(frozen=True, slots=True)
class Timing:
    """When things happened: seconds on the monotonic clock, None for what did not happen."""

    received_at_s: float
    received_s: float
    scheduled_s: float | None = None
    first_token_s: float | None = None
    last_token_s: float | None = None
    finished_s: float | None = None


@dataclass(frozen=True, slots=True)
class Finished:
    """The last event of every stream that began.

    Attributes:
        num_output_tokens: tokens sampled, the end-of-text token included.
        seed: the seed used, drawn by the engine where the request had none.
        error: the sentence for the user where reason is `error` or `deadline`.
    """

    request_id: str
    reason: FinishReason
    num_prompt_tokens: int
    num_output_tokens: int
    seed: int
    timing: Timing
    error: str | None = None


Event = Delta | Finished
