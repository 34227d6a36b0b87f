"""Experiments inside a console: one at a time, in the background, with progress, and a history."""

from __future__ import annotations

import tempfile
import threading
import uuid
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module

from engine.clock import Clock, SystemClock
from engine.config import Settings
from engine.errors import ConsoleError, StoreError
from engine.instance import Backend
from engine.job import Job, JobCancelledError, JobOwner
from engine.lab.experiment import Experiment, ExperimentRunningError, ExperimentStatus, Plan
from engine.lab.fetch import fetch_from_hub
from engine.lab.progress import LabProgress, Step
from engine.lab.speed import NUM_STREAMS
from engine.lab.store import ExperimentStore
from engine.state.database import Database
from engine.weights.sources import find_source
from engine.weights.store import open_weights

# One after the other, with a look between them: together they take seconds to import.
_PACKAGES = ("torch", "transformers.modeling_utils", "torchao.quantization", "engine.lab.measure")


class Lab(JobOwner[LabProgress]):
    """Starts experiments, follows them, and keeps what came of them.

    An experiment fetches a model that is at the hub, then loads its variants one after the other, beside whatever the
    process serves, and never two at once. It is kept after every variant, so one whose process ended shows what it had.
    One that is cancelled ends before the next layer of a forward pass, keeping the variants that have ended; `error`
    also says why results were not kept.
    """

    def __init__(
        self,
        settings: Settings,
        database: Database,
        load_lock: threading.Lock,
        serving_steps: Callable[[], int] = lambda: 0,
        clock: Clock | None = None,
        open_backend: Callable[[], Backend] | None = None,
    ) -> None:
        super().__init__(Job("lab", "the experiment"))
        self._settings = settings
        self._load_lock = load_lock
        self._serving_steps = serving_steps
        self._clock = clock or SystemClock()
        self._open_backend = open_backend or self._open_local_backend
        self.store = ExperimentStore(database)

    def start(self, plan: Plan) -> str:
        """Begin an experiment and return its id at once.

        Raises:
            InvalidRequestError: the plan cannot be run.
            WeightsError: there is no such model.
            ExperimentRunningError: one is under way.
        """
        plan.check()
        find_source(plan.source)
        experiment = Experiment(uuid.uuid4().hex, self._clock.wall(), plan)
        begun = LabProgress(experiment, plan.reference.label, 0)
        if not self._job.start(begun, lambda: self._run(experiment)):
            raise ExperimentRunningError(
                "an experiment is running already, and figures of two at once would mean nothing: wait for it, or "
                "cancel it"
            )
        return experiment.id

    def _run(self, experiment: Experiment) -> None:
        began_s = self._clock.monotonic()
        cache = open_weights(self._settings, self._clock).cache
        self._keep(experiment)
        try:
            source, lease = fetch_from_hub(experiment.plan.source, cache, self._note_fetching)
            with lease:
                self._measure_all(experiment, source)
            self._finish(ExperimentStatus.DONE, began_s)
        except JobCancelledError:
            self._finish(ExperimentStatus.CANCELLED, began_s)

    def _measure_all(self, experiment: Experiment, source: str) -> None:
        for package in _PACKAGES:
            self._note(Step.STARTING, None, "")
            import_module(package)
        from engine.lab.measure import Bench, measure
        from engine.lab.quality import ReferenceLogProbs

        plan, home = replace(experiment.plan, source=source), self._settings.home
        with tempfile.TemporaryFile(dir=home) as file:  # without a name, so it goes with the process
            backend, original = self._open_backend(), ReferenceLogProbs(file, home)
            shared = (self._load_lock, self._note, self._job.check, self._serving_steps, original)
            bench = Bench(plan, backend, self._clock, *shared)
            for index, variant in enumerate(plan.all_variants()):
                self._job.report(LabProgress(experiment, variant.label, index, Step.LOADING))
                result = measure(bench, variant, is_reference=index == 0)
                experiment = replace(experiment, results=(*experiment.results, result))
                self._job.report(LabProgress(experiment, variant.label, index + 1, Step.LOADING))
                self._keep(experiment)

    def _note(self, step: Step, fraction: float | None, detail: str) -> None:
        progress = self._job.progress()
        if progress is not None:
            self._job.report(replace(progress, step=step, fraction=fraction, detail=detail))

    def _note_fetching(self, stage: str, fraction: float | None) -> None:
        self._note(Step.FETCHING, fraction, stage)

    def _finish(self, status: ExperimentStatus, began_s: float) -> None:
        progress = self._job.progress()
        if progress is not None:
            took_s = self._clock.monotonic() - began_s
            self._keep(replace(progress.experiment, status=status, took_s=took_s))

    def _keep(self, experiment: Experiment) -> None:
        """Store what there is; an experiment goes on when that fails."""
        try:
            self.store.keep(experiment)
        except ConsoleError as error:
            self._job.fail(StoreError(f"the results are not kept: {error}"))

    def _open_local_backend(self) -> Backend:
        """Called on the lab's own thread: importing torch takes seconds. Its runners must hold eight streams, whatever
        an instance may."""
        from engine.backend import LocalBackend

        room = max(NUM_STREAMS, self._settings.max_running)
        return LocalBackend(self._settings.model_copy(update={"max_running": room}), self._clock)
