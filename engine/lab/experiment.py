"""An experiment: what is to be compared, and what came of it, as plain data."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from engine.errors import ConsoleError, InvalidRequestError
from engine.lab.variant import Variant
from engine.models.spec import Device, Quantization

MAX_VARIANTS = 16
MAX_PROMPTS = 16
MAX_PROMPT_CHARACTERS = 4_000
MAX_TEXT_CHARACTERS = 400_000
TEXT_TOKENS = (64, 16_384)
REPEATS = (1, 20)
ANSWER_TOKENS = (1, 512)
SPEED_TOKENS = (2, 512)

_AS_IT_COMES = Variant()


class ExperimentRunningError(ConsoleError):
    """An experiment is under way, and there is one at a time."""

    status = 409
    code = "experiment_running"


class ExperimentStatus(StrEnum):
    """How an experiment ended. One that never got to its end, because the process did, reads as `interrupted`."""

    DONE = "done"
    CANCELLED = "cancelled"
    INTERRUPTED = "interrupted"


@dataclass(frozen=True, slots=True)
class Plan:
    """What to compare, on what.

    Attributes:
        source: the model, as `ModelSpec` names it.
        reference: the original that the others are compared with; it runs first.
        prompts: what each variant answers, and what speed is measured on.
        text: what perplexity is measured on; None for the bundled text.
        num_text_tokens: at most so many tokens of the text.
        repeats: how often each speed is measured.
        answer_tokens, speed_tokens: output tokens of an answer, and of a stream while speed is measured.
    """

    source: str
    variants: tuple[Variant, ...]
    prompts: tuple[str, ...]
    reference: Variant = _AS_IT_COMES
    device: Device = "auto"
    text: str | None = None
    num_text_tokens: int = 2_048
    repeats: int = 3
    answer_tokens: int = 64
    speed_tokens: int = 32

    def all_variants(self) -> tuple[Variant, ...]:
        """The reference, then the others."""
        return (self.reference, *self.variants)

    def check(self) -> None:
        """Raise InvalidRequestError for a plan that cannot be run."""
        if not self.source.strip():
            raise InvalidRequestError("the source is empty: choose a model, or give the path of one", "source")
        _check_variants(self.reference, self.variants)
        _check_prompts(self.prompts)
        if self.text is not None:
            _bound("the text's length in characters", len(self.text.strip()), (1, MAX_TEXT_CHARACTERS), "text")
        _bound("the number of text tokens", self.num_text_tokens, TEXT_TOKENS, "num_text_tokens")
        _bound("the number of repeats", self.repeats, REPEATS, "repeats")
        _bound("the length of answers", self.answer_tokens, ANSWER_TOKENS, "answer_tokens")
        _bound("the length of speed runs", self.speed_tokens, SPEED_TOKENS, "speed_tokens")


def _check_variants(reference: Variant, variants: tuple[Variant, ...]) -> None:
    if not variants:
        raise InvalidRequestError("no variant is chosen: choose at least one to compare with the original", "variants")
    _bound("the number of variants", len(variants), (1, MAX_VARIANTS), "variants")
    labels = [variant.label for variant in (reference, *variants)]
    twice = next((label for label in labels if labels.count(label) > 1), None)
    if twice is not None:
        raise InvalidRequestError(f"{twice} is there twice: leave one out", "variants")


def _check_prompts(prompts: tuple[str, ...]) -> None:
    _bound("the number of prompts", len(prompts), (1, MAX_PROMPTS), "prompts")
    for prompt in prompts:
        _bound("the length of a prompt in characters", len(prompt.strip()), (1, MAX_PROMPT_CHARACTERS), "prompts")


def _bound(what: str, value: int, bounds: tuple[int, int], param: str) -> None:
    low, high = bounds
    if not low <= value <= high:
        raise InvalidRequestError(f"{what} is {value:,}; it must be at least {low:,} and at most {high:,}", param)


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its 95 % interval; `low` and `high` are None where one measurement tells no spread."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Quality:
    """How a variant predicts the text.

    Attributes:
        num_tokens: tokens that were predicted.
        perplexity: with an interval over blocks of the text.
        perplexity_ratio: perplexity over the original's, its interval from the same blocks in pairs, which is far
            narrower; None without an original.
        kl: mean divergence of the next-token distribution, KL(original || variant), in nats a token.
        kl_p95: its 95th percentile over tokens.
        top1_agreement: share of tokens for which both find the same one most likely.
    """

    num_tokens: int
    perplexity: Estimate
    perplexity_ratio: Estimate | None
    kl: Estimate | None
    kl_p95: float | None
    top1_agreement: float | None


@dataclass(frozen=True, slots=True)
class Speed:
    """Through the engine's own step loop. `ttft_s` is the time to the first token of a single stream; a rate counts all
    output tokens from the submission to the last token."""

    ttft_s: Estimate
    one_stream_tokens_per_s: Estimate
    eight_streams_tokens_per_s: Estimate


@dataclass(frozen=True, slots=True)
class Answer:
    """A greedy answer. `is_cut` when it reached the length asked for."""

    text: str
    num_tokens: int
    is_cut: bool


@dataclass(frozen=True, slots=True)
class VariantResult:
    """What was measured of one variant; None for what was not reached.

    Attributes:
        dtype, device: what `auto` came to.
        load_s: the first load of a GGUF file includes unpacking it.
        process_bytes: by how much the process grew on the device by then, weights that are pages of their file
            included; the first variant also counts code that it imports.
        answers: one a prompt, in their order.
        was_disturbed: instances of this process ran requests meanwhile, so figures of speed are not comparable.
        error: why it ended early.
    """

    variant: Variant
    is_reference: bool = False
    dtype: str | None = None
    device: str | None = None
    load_s: float | None = None
    weights_bytes: int | None = None
    process_bytes: int | None = None
    quality: Quality | None = None
    answers: tuple[Answer, ...] = ()
    speed: Speed | None = None
    was_disturbed: bool = False
    error: str | None = None

    @property
    def label(self) -> str:
        """The variant's name, `auto` replaced by what it came to."""
        is_auto = self.variant.quantization is None and self.variant.dtype == "auto" and self.dtype is not None
        return str(self.dtype) if is_auto else self.variant.label

    @property
    def quantization(self) -> Quantization | None:
        """How its weights are quantized; None when they are not."""
        return self.variant.quantization


@dataclass(frozen=True, slots=True)
class Experiment:
    """A plan and the results so far, the reference first. `started_at_s` counts seconds since the epoch."""

    id: str
    started_at_s: float
    plan: Plan
    status: ExperimentStatus = ExperimentStatus.INTERRUPTED
    took_s: float = 0.0
    results: tuple[VariantResult, ...] = ()

    @property
    def reference(self) -> VariantResult | None:
        """The original's result; None before it is there."""
        return next((result for result in self.results if result.is_reference), None)
