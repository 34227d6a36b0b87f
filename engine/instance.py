"""One model being served: its states, its supervisor thread, and its worker thread.

The supervisor loads, warms up, starts the worker and then waits for it to end. A worker that ends without being
asked to, for whatever reason, is therefore noticed at once: its requests end with an error, and the instance warms
up again after a pause that doubles each time.
"""

from __future__ import annotations

import itertools
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

from engine.clock import Clock
from engine.errors import ConsoleError, InstanceNotReadyError, WeightsError, WorkerDiedError
from engine.inference.request import Finished, Request, Timing
from engine.inference.stats import RunnerStats
from engine.models.spec import ModelInfo, ModelSpec

if TYPE_CHECKING:
    from engine.inference.runner import Runner
    from engine.inference.sequence import Sequence
    from engine.models.loader import LoadedModel

logger = logging.getLogger(__name__)

_IDLE_WAIT_S = 0.5
_FIRST_PAUSE_S = 1.0
_LONGEST_PAUSE_S = 60.0
_STEADY_S = 60.0


class InstanceState(StrEnum):
    """Where an instance is in its life. Only `ready` answers requests."""

    PENDING = "pending"
    LOADING = "loading"
    WARMING = "warming"
    READY = "ready"
    DRAINING = "draining"
    STOPPED = "stopped"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class InstanceInfo:
    """A reading of one instance.

    Attributes:
        reason: why it failed, None otherwise.
        stage: what loading is doing now; `progress` is its fraction, None where it is not known.
        since_s: seconds since the epoch at which the state began.
        retry_at_s: when a failed worker starts again, None when it does not by itself.
    """

    name: str
    spec: ModelSpec
    state: InstanceState
    reason: str | None
    stage: str | None
    progress: float | None
    since_s: float
    num_restarts: int
    retry_at_s: float | None
    model: ModelInfo | None
    stats: RunnerStats | None


class Backend(Protocol):
    """What an instance needs of the inference packages; tests put a fake in its place."""

    def load(self, spec: ModelSpec, on_progress: Callable[[str, float | None], None]) -> LoadedModel:
        """Bring the model into memory, or raise a ConsoleError for the user."""

    def start(self, loaded: LoadedModel, on_finish: Callable[[Sequence, Finished], None]) -> Runner:
        """A fresh runner over the model."""

    def warm_up(self, loaded: LoadedModel, runner: Runner) -> None:
        """Generate something, or raise."""

    def prepare(self, loaded: LoadedModel, runner: Runner, request: Request, timing: Timing) -> Sequence:
        """Check a request against the model; raise InvalidRequestError where it does not fit."""


class Instance:
    """Owns a model's threads and state. All public methods may be called from any thread."""

    def __init__(
        self,
        name: str,
        spec: ModelSpec,
        open_backend: Callable[[], Backend],
        clock: Clock,
        load_lock: threading.Lock,
        on_finish: Callable[[Sequence, Finished], None],
    ) -> None:
        self.name = name
        self.spec = spec
        self._open_backend = open_backend
        self._backend: Backend | None = None
        self._clock = clock
        self._load_lock = load_lock
        self._on_finish = on_finish
        self._lock = threading.Lock()
        self._state = InstanceState.PENDING
        self._since_s = clock.wall()
        self._reason: str | None = None
        self._stage: str | None = None
        self._progress: float | None = None
        self._num_restarts = 0
        self._retry_at_s: float | None = None
        self._loaded: LoadedModel | None = None
        self._runner: Runner | None = None
        self._stopping = threading.Event()
        self._worker_error: BaseException | None = None
        self._supervisor = threading.Thread(target=self._supervise, name=f"supervisor:{name}", daemon=True)

    def start(self) -> None:
        """Begin loading, in the background."""
        self._supervisor.start()

    def submit(self, request: Request, timing: Timing) -> Sequence:
        """Queue a request.

        Raises:
            InstanceNotReadyError: the instance is in another state than ready.
            InvalidRequestError, QueueFullError: see `Backend.prepare` and `Runner.submit`.
        """
        with self._lock:
            state, reason, backend = self._state, self._reason, self._backend
            loaded, runner = self._loaded, self._runner
        if state is not InstanceState.READY or backend is None or loaded is None or runner is None:
            because = f": {reason}" if reason else ""
            raise InstanceNotReadyError(f"{self.name} is {state}{because}; try again when it is ready")
        sequence = backend.prepare(loaded, runner, request, timing)
        runner.submit(sequence)
        return sequence

    def cancel(self, request_id: str) -> bool:
        """Cancel a request that is here; False when it is not."""
        runner = self._runner
        return runner is not None and runner.cancel(request_id)

    def requests(self) -> list[Sequence]:
        """The requests waiting and running."""
        runner = self._runner
        return [] if runner is None else runner.requests()

    def info(self) -> InstanceInfo:
        """A reading."""
        with self._lock:
            return InstanceInfo(
                name=self.name,
                spec=self.spec,
                state=self._state,
                reason=self._reason,
                stage=self._stage,
                progress=self._progress,
                since_s=self._since_s,
                num_restarts=self._num_restarts,
                retry_at_s=self._retry_at_s,
                model=None if self._loaded is None else self._loaded.info,
                stats=None if self._runner is None else self._runner.stats(),
            )

    def stop(self, drain_s: float = 0.0) -> None:
        """Refuse new requests, give running ones `drain_s` seconds, then end them and free the model. Returns when
        the threads have ended."""
        if self._state is InstanceState.READY:
            self._enter(InstanceState.DRAINING)
            self._drain(drain_s)
        self._stopping.set()
        runner = self._runner
        if runner is not None:
            runner.refuse()
        if self._supervisor.is_alive():
            self._supervisor.join()

    def _drain(self, drain_s: float) -> None:
        end = self._clock.monotonic() + drain_s
        while self.requests() and self._clock.monotonic() < end:
            self._stopping.wait(0.05)

    def _enter(self, state: InstanceState, reason: str | None = None, retry_at_s: float | None = None) -> None:
        with self._lock:
            if self._state is not state:
                logger.info("%s is %s%s", self.name, state, f": {reason}" if reason else "")
            self._state, self._reason, self._retry_at_s = state, reason, retry_at_s
            self._since_s = self._clock.wall()
            self._stage = self._progress = None

    def _report(self, stage: str, fraction: float | None) -> None:
        with self._lock:
            self._stage, self._progress = stage, fraction
        if self._stopping.is_set():
            raise InstanceNotReadyError(f"{self.name} was unloaded while it was loading")

    def _supervise(self) -> None:
        try:
            if self._load():
                self._serve()
        except Exception as error:
            logger.exception("the supervisor of %s failed", self.name)
            self._enter(InstanceState.FAILED, f"its supervisor failed: {type(error).__name__}: {error}; load it again")
        finally:
            with self._lock:
                self._loaded = self._runner = None
            if self._stopping.is_set():
                self._enter(InstanceState.STOPPED)

    def _load(self) -> bool:
        """Wait for the turn to load, and load; False when that failed or the instance was stopped before."""
        while not self._load_lock.acquire(timeout=_IDLE_WAIT_S):
            if self._stopping.is_set():
                return False
        try:
            self._enter(InstanceState.LOADING)
            try:
                self._report("starting torch", None)
                self._backend = self._open_backend()
                self._loaded = self._backend.load(self.spec, self._report)
            except ConsoleError as error:
                self._enter(InstanceState.FAILED, str(error))
            except Exception as error:
                logger.exception("loading %s failed", self.name)
                self._enter(InstanceState.FAILED, f"loading failed: {type(error).__name__}: {error}")
        finally:
            self._load_lock.release()
        return self._loaded is not None

    def _serve(self) -> None:
        pause_s = _FIRST_PAUSE_S
        for attempt in itertools.count():
            self._num_restarts = attempt
            began = self._clock.monotonic()
            reason = self._run_worker()
            if self._stopping.is_set() or reason is None:
                return
            if self._clock.monotonic() - began > _STEADY_S:
                pause_s = _FIRST_PAUSE_S
            self._enter(InstanceState.FAILED, reason, self._clock.wall() + pause_s)
            self._stopping.wait(pause_s)
            if self._stopping.is_set():
                return
            pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)

    def _run_worker(self) -> str | None:
        """Warm up, serve until the worker ends, and say why it did; None when trying again would not help."""
        backend, loaded = self._backend, self._loaded
        if backend is None or loaded is None:
            return "no model is loaded"
        self._enter(InstanceState.WARMING)
        try:
            runner = backend.start(loaded, self._on_finish)
            backend.warm_up(loaded, runner)
        except WeightsError as error:
            self._enter(InstanceState.FAILED, str(error))
            return None
        except Exception as error:
            logger.exception("warming up %s failed", self.name)
            return f"the warm-up failed: {type(error).__name__}: {error}"
        self._worker_error = None
        worker = threading.Thread(target=self._work, args=(runner,), name=f"worker:{self.name}", daemon=True)
        with self._lock:
            self._runner = runner
        worker.start()
        self._enter(InstanceState.READY)
        worker.join()
        return self._bury(runner)

    def _bury(self, runner: Runner) -> str:
        """End what the dead worker left behind; the reason for the user."""
        error = self._worker_error
        cause = "it ended without an error" if error is None else f"{type(error).__name__}: {error}"
        message = str(WorkerDiedError(f"the worker of {self.name} died ({cause}); it restarts, send the request again"))
        runner.close(None if self._stopping.is_set() else message)
        return f"the worker died ({cause})"

    def _work(self, runner: Runner) -> None:
        try:
            while not self._stopping.is_set():
                if not runner.step():
                    runner.wait(_IDLE_WAIT_S)
        except BaseException as error:
            self._worker_error = error
            logger.exception("the worker of %s died", self.name)
