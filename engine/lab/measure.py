"""Measuring one variant: load it, let it predict the text, answer the prompts, time it, free it.

Imports torch, so only the lab's own thread imports it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from engine.clock import Clock
from engine.errors import ConsoleError
from engine.inference.runner import Runner
from engine.instance import Backend
from engine.job import JobCancelledError
from engine.lab.experiment import Plan, Quality, VariantResult
from engine.lab.looking import LookingAtEachOperation, looking_at_each_layer
from engine.lab.progress import OnStep, Step
from engine.lab.quality import ReferenceLogProbs, measure_original, measure_variant
from engine.lab.speed import Stage
from engine.lab.text import bundled_text
from engine.lab.variant import Variant
from engine.models.loader import LoadedModel, choose_placement
from engine.models.measured import mark_memory, measure_loaded
from engine.models.release import release_memory
from engine.models.spec import ModelSpec

logger = logging.getLogger(__name__)

_LOCK_POLL_S = 0.2


@dataclass(frozen=True)
class Bench:
    """What the measurements of one experiment share.

    Attributes:
        load_lock: models load one at a time in a process.
        on_step, check: told of every step, and called before every layer at least; both raise JobCancelledError once
            the experiment is cancelled.
        serving_steps: how many steps the instances of this process have run so far.
        original: the original's log-probabilities; its own measurement fills it.
    """

    plan: Plan
    backend: Backend
    clock: Clock
    load_lock: threading.Lock
    on_step: OnStep
    check: Callable[[], None]
    serving_steps: Callable[[], int]
    original: ReferenceLogProbs


def measure(bench: Bench, variant: Variant, is_reference: bool) -> VariantResult:
    """Everything about one variant. A failure ends it and is told in its result, beside what was measured before.

    Raises:
        JobCancelledError: `bench.check` said so.
    """
    measurement = _Measurement(bench, VariantResult(variant, is_reference))
    steps_before = bench.serving_steps()
    try:
        measurement.run()
    except JobCancelledError:
        raise
    except ConsoleError as error:
        measurement.note(error=str(error))
    except Exception as error:
        logger.exception("measuring %s failed", variant.label)
        measurement.note(error=_explain(error))
    finally:
        release_memory()
    measurement.note(was_disturbed=bench.serving_steps() != steps_before)
    return measurement.result


def _explain(error: Exception) -> str:
    first_line = (str(error).strip() or "no reason given").splitlines()[0]
    return f"{type(error).__name__}: {first_line}"


class _Measurement:
    """The result as it grows, so that a failure keeps what was there."""

    def __init__(self, bench: Bench, result: VariantResult) -> None:
        self._bench = bench
        self._plan = bench.plan
        self.result = result

    def note(self, **found: Any) -> None:
        """Put findings into the result."""
        self.result = replace(self.result, **found)

    def run(self) -> None:
        """All steps in turn; the model is nobody's once this returns."""
        spec = self.result.variant.spec(self._plan.source, self._plan.device, self._plan.prompts)
        mark_bytes = mark_memory(str(choose_placement(spec)[0]))
        with LookingAtEachOperation(self._bench.check):
            loaded = self._load(spec)
            self.note(quality=self._quality(loaded))
        self.note(process_bytes=measure_loaded(loaded, mark_bytes=mark_bytes).process_bytes)
        self._bench.on_step(Step.ANSWERS, None, "")
        runner = self._bench.backend.start(loaded, lambda _sequence, _finished: None)
        try:
            self._let_it_answer(loaded, runner)
        finally:
            runner.close(None)

    def _let_it_answer(self, loaded: LoadedModel, runner: Runner) -> None:
        stage = Stage(self._bench.backend, loaded, runner, self._bench.clock, self._bench.check)
        with LookingAtEachOperation(self._bench.check):
            self._bench.backend.warm_up(loaded, runner)
            self.note(answers=stage.answer(self._plan.prompts, self._plan.answer_tokens))
        report = partial(self._report, Step.SPEED)
        with looking_at_each_layer(loaded.model, self._bench.check):
            self.note(speed=stage.measure(self._plan.prompts, self._plan.speed_tokens, self._plan.repeats, report))

    def _load(self, spec: ModelSpec) -> LoadedModel:
        self._take_turn()
        try:
            loaded = self._bench.backend.load(spec, self._report_loading)
        finally:
            self._bench.load_lock.release()
        info = loaded.info
        self.note(dtype=info.dtype, device=info.device, load_s=info.loaded_s, weights_bytes=info.weights_bytes)
        return loaded

    def _take_turn(self) -> None:
        self._bench.on_step(Step.LOADING, None, "")
        while not self._bench.load_lock.acquire(timeout=_LOCK_POLL_S):
            self._bench.on_step(Step.WAITING, None, "")

    def _quality(self, loaded: LoadedModel) -> Quality:
        text = bundled_text() if self._plan.text is None else self._plan.text
        report = partial(self._report, Step.QUALITY)
        if self.result.is_reference:
            return measure_original(loaded, text, self._plan.num_text_tokens, report, self._bench.original)
        original = self._bench.original if self._bench.original.is_whole else None
        return measure_variant(loaded, text, self._plan.num_text_tokens, report, original)

    def _report_loading(self, stage: str, fraction: float | None) -> None:
        self._bench.on_step(Step.LOADING, fraction, stage)

    def _report(self, step: Step, fraction: float) -> None:
        self._bench.on_step(step, fraction, "")
