"""The real backend of an instance: transformers models in this process.

Imported on an instance's supervisor thread only, because it imports torch.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from engine.clock import Clock
from engine.config import Settings
from engine.errors import ContextLengthError, WeightsError, WorkerDiedError
from engine.inference.parity import check_parity
from engine.inference.prompt import render_prompt
from engine.inference.request import WARM_UP, Finished, FinishReason, Message, Request, SamplingParams, Timing
from engine.inference.runner import Runner
from engine.inference.sequence import Sequence
from engine.inference.text import Detokenizer
from engine.models.loader import LoadedModel, load_model
from engine.models.memory import cache_budget_bytes
from engine.models.spec import ModelSpec
from engine.scheduling.admission import Limits
from engine.weights.cache import WeightsCache

_CPU_CHUNK_TOKENS = 256
_GPU_CHUNK_TOKENS = 2048


class LocalBackend:
    """Loads and runs models with the given settings."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._cache = WeightsCache(settings.home / "weights")
        if settings.threads is not None:
            torch.set_num_threads(settings.threads)

    def load(self, spec: ModelSpec, on_progress: Callable[[str, float | None], None]) -> LoadedModel:
        loaded = load_model(spec, self._cache, on_progress)
        on_progress("comparing with the reference", None)
        check_parity(loaded)
        return loaded

    def start(self, loaded: LoadedModel, on_finish: Callable[[Sequence, Finished], None]) -> Runner:
        return Runner(loaded, choose_limits(loaded, self._settings), self._clock, on_finish)

    def warm_up(self, loaded: LoadedModel, runner: Runner) -> None:
        run_warm_up(loaded, runner, self._clock)

    def prepare(self, loaded: LoadedModel, runner: Runner, request: Request, timing: Timing) -> Sequence:
        return prepare_sequence(loaded, runner.limits, request, timing, self._settings)


def choose_limits(loaded: LoadedModel, settings: Settings) -> Limits:
    """How much one instance may hold.

    Raises:
        WeightsError: the memory for the cache holds less than a useful context.
    """
    is_cpu = loaded.cache_shape.device.type == "cpu"
    chunk_tokens = settings.chunk_tokens or (_CPU_CHUNK_TOKENS if is_cpu else _GPU_CHUNK_TOKENS)
    budget_bytes = cache_budget_bytes(loaded.cache_shape.device, settings.kv_cache_gib)
    cache_tokens = budget_bytes // loaded.info.cache_bytes_per_token
    if cache_tokens < chunk_tokens:
        raise WeightsError(
            f"{budget_bytes / 2**30:.2f} GiB for KV caches hold {cache_tokens} tokens of this model; at least "
            f"{chunk_tokens} are needed: raise CONSOLE_KV_CACHE_GIB or free memory"
        )
    return Limits(settings.max_running, settings.max_waiting, chunk_tokens, cache_tokens)


def prepare_sequence(
    loaded: LoadedModel, limits: Limits, request: Request, timing: Timing, settings: Settings
) -> Sequence:
    """Check a request against the model and make it ready to run.

    Raises:
        InvalidRequestError: a parameter is out of the model's bounds.
        ContextLengthError: prompt and answer do not fit into the context, or into the cache.
    """
    request.sampling.check(loaded.info.vocab_size)
    prompt_ids = render_prompt(loaded.tokenizer, request.messages)
    room = min(loaded.info.context_length, limits.cache_tokens) - len(prompt_ids)
    if room < 1:
        raise ContextLengthError(
            f"the prompt has {len(prompt_ids):,} tokens and the context of {loaded.name} holds "
            f"{min(loaded.info.context_length, limits.cache_tokens):,}: shorten the prompt or the conversation",
            "messages",
        )
    asked = request.sampling.max_tokens
    if asked is not None and asked > room:
        raise ContextLengthError(
            f"max_tokens is {asked:,}, and after a prompt of {len(prompt_ids):,} tokens {room:,} fit: lower it",
            "max_tokens",
        )
    max_tokens = asked if asked is not None else min(room, settings.default_max_tokens)
    timeout_s = request.timeout_s if request.timeout_s is not None else settings.request_timeout_s
    detokenizer = Detokenizer(loaded.tokenizer._tokenizer, request.sampling.stop)
    return Sequence(request, prompt_ids, max_tokens, timing.received_s + timeout_s, timing, detokenizer)


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
