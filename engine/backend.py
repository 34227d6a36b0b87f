"""The real backend of an instance: transformers models in this process.

Imported on an instance's supervisor thread only, because it imports torch.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from engine.clock import Clock
from engine.config import Settings
from engine.errors import ContextLengthError, InvalidRequestError, WeightsError, WorkerDiedError
from engine.inference.calls import plan_calls
from engine.inference.embedder import Embedder
from engine.inference.embedding import MAX_REQUEST_TOKENS, MAX_TEXT_TOKENS, EmbeddingJob, EmbeddingRequest
from engine.inference.image_parity import serve_images
from engine.inference.image_prompt import ImagePrompt
from engine.inference.parity import choose_forward
from engine.inference.prefixes import PrefixLimits
from engine.inference.prompt import detokenize, encode_prompt, render_image_prompt, render_prompt, tokenize
from engine.inference.prompt_bound import least_tokens
from engine.inference.request import WARM_UP, Finished, FinishReason, Message, Request, SamplingParams, Timing
from engine.inference.runner import Runner
from engine.inference.sequence import Sequence
from engine.inference.structured import Vocabulary, vocabulary_of
from engine.inference.text import Detokenizer
from engine.inference.tokens import TokenizeRequest, Tokens
from engine.inference.vision import Vision
from engine.latency.histogram import Histogram
from engine.models.comparison import Measured
from engine.models.loader import LoadedModel, choose_placement, load_model
from engine.models.measured import mark_memory, measure_loaded
from engine.models.memory import cache_budget_bytes
from engine.models.spec import ModelSpec, Passes
from engine.scheduling.admission import Limits
from engine.scheduling.window import Window
from engine.weights.store import open_weights

_CPU_CHUNK_TOKENS = 256
_GPU_CHUNK_TOKENS = 2048
_GPU_BLOCK_TOKENS = 64
# Texts that are embedded together, and how long the first of them waits for the others.
_WINDOW_TEXTS = 32
_WINDOW_S = 0.005


class LocalBackend:
    """Loads and runs models with the given settings. `gaps_of` gives, for a model's name, where the seconds between
    two tokens of a request are counted."""

    def __init__(self, settings: Settings, clock: Clock, gaps_of: Callable[[str], Histogram] | None = None) -> None:
        self._settings = settings
        self._clock = clock
        self._gaps_of = gaps_of
        self._weights = open_weights(settings, clock)
        if settings.threads is not None:
            torch.set_num_threads(settings.threads)

    def load(self, spec: ModelSpec, on_progress: Callable[[str, float | None], None]) -> LoadedModel:
        loaded = load_model(spec, self._weights, on_progress)
        on_progress("comparing with the reference", None)
        return serve_images(choose_forward(loaded))

    def mark_memory(self, spec: ModelSpec) -> int:
        return mark_memory(str(choose_placement(spec)[0]))

    def measure(self, loaded: LoadedModel, runner: Runner, mark_bytes: int | None) -> Measured:
        return measure_loaded(loaded, (runner.held_tokens,), mark_bytes)

    def start(self, loaded: LoadedModel, on_finish: Callable[[Sequence, Finished], None]) -> Runner:
        limits = choose_limits(loaded, self._settings)
        return Runner(loaded, limits, self._clock, on_finish, choose_prefix_limits(loaded, limits, self._settings))

    def warm_up(self, loaded: LoadedModel, runner: Runner) -> None:
        run_warm_up(loaded, runner, self._clock)
        if self._gaps_of is not None:  # only from now on: the warm-up served nobody
            runner.token_gaps = self._gaps_of(loaded.name)

    def prepare(self, loaded: LoadedModel, runner: Runner, request: Request, timing: Timing) -> Sequence:
        runner.check_room()
        return prepare_sequence(loaded, runner.limits, request, timing, self._settings)

    def start_embedder(
        self, loaded: LoadedModel, runner: Runner, on_finish: Callable[[EmbeddingJob, Finished], None]
    ) -> Embedder:
        chunk_tokens = runner.limits.chunk_tokens
        window = Window(_WINDOW_TEXTS, _WINDOW_S, max(1, chunk_tokens // 2), max(1, chunk_tokens // 4))
        return Embedder(loaded, window, self._clock, on_finish, runner.wake)

    def prepare_embedding(
        self, loaded: LoadedModel, runner: Runner, request: EmbeddingRequest, timing: Timing
    ) -> EmbeddingJob:
        return prepare_embedding(loaded, runner.limits, request, timing, self._settings)

    def tokenize(self, loaded: LoadedModel, request: TokenizeRequest) -> Tokens:
        return _tokenize(loaded, request)

    def detokenize(self, loaded: LoadedModel, token_ids: tuple[int, ...]) -> str:
        return detokenize(loaded.tokenizer, token_ids, loaded.info.vocab_size)


def choose_limits(loaded: LoadedModel, settings: Settings) -> Limits:
    """How much one instance may hold.

    Raises:
        WeightsError: the memory for the cache holds less than a useful context.
    """
    is_cpu = loaded.cache_shape.device.type == "cpu"
    chunk_tokens = settings.chunk_tokens or (_CPU_CHUNK_TOKENS if is_cpu else _GPU_CHUNK_TOKENS)
    budget_bytes = cache_budget_bytes(loaded.cache_shape.device, settings.kv_cache_gib)
    max_running = loaded.max_running or settings.max_running
    per_token = loaded.info.cache_bytes_per_token
    cache_tokens = budget_bytes // per_token if per_token else max_running * loaded.info.context_length
    if cache_tokens < chunk_tokens:
        raise WeightsError(
            f"{budget_bytes / 2**30:.2f} GiB for KV caches hold {cache_tokens} tokens of this model; at least "
            f"{chunk_tokens} are needed: raise CONSOLE_KV_CACHE_GIB or free memory"
        )
    queue_timeout_s = settings.queue_timeout_s if settings.queue_policy == "wait" else None
    return Limits(
        max_running, settings.max_waiting, chunk_tokens, cache_tokens, settings.max_waiting_tokens, queue_timeout_s
    )


def choose_prefix_limits(loaded: LoadedModel, limits: Limits, settings: Settings) -> PrefixLimits:
    """How much of the KV cache may hold the beginnings of prompts while no running request needs it.

    On a CPU a block is what one pass computes, so that answers keep their bits; elsewhere they have none to keep. A
    model whose requests are run one by one keeps nothing: a state cannot be cut.
    """
    if loaded.passes is not Passes.PACKED:
        return PrefixLimits()
    is_cpu = loaded.cache_shape.device.type == "cpu"
    asked_gib, max_tokens = settings.prefix_cache_gib, limits.cache_tokens // 4
    if asked_gib is not None:
        max_tokens = min(limits.cache_tokens, int(asked_gib * 2**30) // loaded.info.cache_bytes_per_token)
    block_tokens = limits.chunk_tokens if is_cpu else min(limits.chunk_tokens, _GPU_BLOCK_TOKENS)
    return PrefixLimits(max_tokens, block_tokens, settings.prefix_sharing == "all")


def prepare_sequence(
    loaded: LoadedModel, limits: Limits, request: Request, timing: Timing, settings: Settings
) -> Sequence:
    """Check a request against the model and make it ready to run.

    Raises:
        InvalidRequestError: a parameter is out of the model's bounds.
        ContextLengthError: prompt and answer do not fit into the context, or into the cache.
    """
    request.sampling.check(loaded.info.vocab_size)
    prompt_ids, images = _read_prompt(loaded, limits, request)
    room = min(loaded.info.context_length, limits.cache_tokens) - len(prompt_ids)
    asked = request.sampling.max_tokens
    if asked is not None and asked > room:
        raise ContextLengthError(
            f"max_tokens is {asked:,}, and after a prompt of {len(prompt_ids):,} tokens {room:,} fit: lower it",
            "max_tokens",
        )
    max_tokens = asked if asked is not None else min(room, settings.default_max_tokens)
    plan = plan_calls(loaded.tokenizer, request)
    matcher = None if plan.grammar is None else _vocabulary(loaded).compile(plan.grammar)
    detokenizer = Detokenizer(loaded.tokenizer._tokenizer, request.sampling.stop, plan.shown)
    deadline_s = _deadline_s(request.timeout_s, timing, settings)
    return Sequence(request, prompt_ids, max_tokens, deadline_s, timing, detokenizer, matcher, plan.reader, images)


def _vocabulary(loaded: LoadedModel) -> Vocabulary:
    return vocabulary_of(loaded.tokenizer, loaded.info.vocab_size, loaded.end_ids)


def _read_prompt(loaded: LoadedModel, limits: Limits, request: Request) -> tuple[list[int], ImagePrompt | None]:
    """Token ids that leave room for an answer, and the images among them. A text that cannot is not cut into tokens:
    that takes seconds a MB; nor are images that cannot made into numbers."""
    most = min(loaded.info.context_length, limits.cache_tokens)

    def check(num_tokens: int, words: str = "") -> None:
        if num_tokens >= most:
            raise ContextLengthError(
                f"the prompt has {words}{num_tokens:,} tokens and the context of {loaded.name} holds {most:,}: shorten "
                "the prompt or the conversation",
                "messages" if request.prompt is None else "prompt",
            )

    def check_text(text: str, num_more: int = 0) -> None:
        if len(text) + num_more >= most:
            check(least_tokens(loaded.tokenizer, text) + num_more, "at least ")

    images = None
    tools = request.tools.tools if request.tools else ()
    if request.prompt is not None:
        prompt_ids = encode_prompt(loaded.tokenizer, request.prompt, loaded.info.vocab_size, check_text=check_text)
    elif request.images:
        vision = vision_of(loaded, request.images[0].place)
        images = render_image_prompt(vision, request.messages, tools, check_text=check_text)
        prompt_ids = images.token_ids
    else:
        prompt_ids = render_prompt(loaded.tokenizer, request.messages, tools, check_text=check_text)
    check(len(prompt_ids))
    return prompt_ids, images


def vision_of(loaded: LoadedModel, place: str) -> Vision:
    """What shows images to a model. Raises InvalidRequestError naming `place` where it serves none."""
    if loaded.vision is None:
        why = f" ({loaded.why_no_images})" if loaded.why_no_images else ""
        raise InvalidRequestError(
            f"{loaded.name} serves text and no images{why}: leave the picture out, or ask a model that serves images",
            place,
        )
    return loaded.vision


def _tokenize(loaded: LoadedModel, request: TokenizeRequest) -> Tokens:
    """A text that no prompt could be, as it has more tokens than the context for certain, is not cut into them."""
    most = loaded.info.context_length
    images = [image for message in request.messages for image in message.images]
    vision = vision_of(loaded, images[0].place) if images else None

    def check_text(text: str, num_more: int = 0) -> None:
        num_tokens = least_tokens(loaded.tokenizer, text) + num_more if len(text) + num_more > most else 0
        if num_tokens > most:
            raise ContextLengthError(
                f"the text has at least {num_tokens:,} tokens, and the context of {loaded.name} holds {most:,}: send "
                "it in parts",
                "messages" if request.prompt is None else "prompt",
            )

    return tokenize(loaded.tokenizer, request, most, vision, check_text)


def prepare_embedding(
    loaded: LoadedModel, limits: Limits, request: EmbeddingRequest, timing: Timing, settings: Settings
) -> EmbeddingJob:
    """Tokenize texts and check them against the model.

    Raises:
        InvalidRequestError: a token id is outside the vocabulary.
        ContextLengthError: a text, or all together, have too many tokens.
    """
    width = loaded.model.config.get_text_config().hidden_size
    if request.dimensions not in (None, width):
        raise InvalidRequestError(
            f"dimensions is {request.dimensions}; {loaded.name} has {width}: send that, or leave it out",
            "dimensions",
        )
    most = min(loaded.info.context_length, limits.cache_tokens, MAX_TEXT_TOKENS)
    token_ids: list[list[int]] = []
    num_tokens = 0
    for index, text in enumerate(request.inputs):
        token_ids.append(_text_ids(loaded, text, index, most))
        num_tokens += len(token_ids[-1])
        if num_tokens > MAX_REQUEST_TOKENS:
            raise ContextLengthError(
                f"the first {index + 1:,} of the texts have {num_tokens:,} tokens together, at most "
                f"{MAX_REQUEST_TOKENS:,} are embedded in one request: send them in several",
                "input",
            )
    return EmbeddingJob(request, token_ids, _deadline_s(request.timeout_s, timing, settings), timing)


def _text_ids(loaded: LoadedModel, text: str | tuple[int, ...], index: int, most: int) -> list[int]:
    """At most `most` token ids; a text that has more for certain is not cut into them."""

    def check(num_tokens: int, words: str = "") -> None:
        if num_tokens > most:
            raise ContextLengthError(
                f"text {index} has {words}{num_tokens:,} tokens, and {loaded.name} embeds {most:,} at most: shorten or "
                "split it",
                "input",
            )

    def check_text(text: str, _num_more: int = 0) -> None:
        if len(text) > most:
            check(least_tokens(loaded.tokenizer, text), "at least ")

    ids = encode_prompt(loaded.tokenizer, text, loaded.info.vocab_size, "input", check_text)
    check(len(ids))
    return ids


def _deadline_s(timeout_s: float | None, timing: Timing, settings: Settings) -> float:
    return timing.received_s + (timeout_s if timeout_s is not None else settings.request_timeout_s)


def run_warm_up(loaded: LoadedModel, runner: Runner, clock: Clock) -> None:
    """Generate two tokens; raise WorkerDiedError when that does not work."""
    request = Request(loaded.name, (Message("user", "Hello"),), SamplingParams(temperature=0.0), source=WARM_UP)
    ids = loaded.tokenizer("Hello", add_special_tokens=False)["input_ids"] or [0]
    timing = Timing(clock.wall(), clock.monotonic())
    detokenizer = Detokenizer(loaded.tokenizer._tokenizer, ())
    sequence = Sequence(request, ids, 2, float("inf"), timing, detokenizer)
    runner.submit(sequence)
    while sequence.stream.finished is None and runner.step():
        pass
    finished = sequence.stream.finished
    if finished is None or finished.reason not in (FinishReason.STOP, FinishReason.LENGTH):
        raise WorkerDiedError("the warm-up generation gave no token" + (f": {finished.error}" if finished else ""))
