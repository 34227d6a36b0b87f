"""One version of a model: it is loaded, warmed up, served and unloaded on a supervisor thread of its own.

The supervisor loads, warms up, starts the worker and then waits for it to end. A worker that ends without being
asked to, for whatever reason, is therefore noticed at once: its requests end with an error, and the instance warms
up again after a pause that doubles each time.
"""

from __future__ import annotations

import itertools
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from engine.clock import Clock
from engine.errors import ConsoleError, InstanceNotReadyError, WeightsError
from engine.inference.embedding import EmbeddingJob, EmbeddingRequest
from engine.inference.request import WARM_UP, Finished, Request, Timing
from engine.inference.tokens import TokenizeRequest, Tokens
from engine.instance.memory import MemoryWatch
from engine.instance.reading import Backend, InstanceInfo, InstanceState
from engine.instance.status import Status
from engine.instance.worker import Worker
from engine.models.release import release_memory, weights_apart
from engine.models.spec import ModelSpec

if TYPE_CHECKING:
    from engine.inference.embedder import Embedder
    from engine.inference.runner import Runner
    from engine.inference.sequence import Sequence
    from engine.models.comparison import MemoryReading
    from engine.models.loader import LoadedModel

logger = logging.getLogger(__name__)

Report = Callable[[str, float | None], None]

_generations = itertools.count(1)
_LOCK_WAIT_S = 0.5
_DRAIN_POLL_S = 0.05
_FIRST_PAUSE_S = 1.0
_LONGEST_PAUSE_S = 60.0
_STEADY_S = 60.0


@dataclass(frozen=True, slots=True)
class _Service:
    """What a request is handed to."""

    backend: Backend
    loaded: LoadedModel
    runner: Runner
    embedder: Embedder


class Instance:
    """Owns a model's threads and state. All public methods may be called from any thread.

    `make_room` is called when it is this instance's turn to load, with a function to report to, and may raise a
    ConsoleError where there is no room. `memory_watch` then compares the load with its plan.
    """

    def __init__(
        self,
        name: str,
        spec: ModelSpec,
        open_backend: Callable[[], Backend],
        clock: Clock,
        load_lock: threading.Lock,
        on_finish: Callable[[Sequence | EmbeddingJob, Finished], None],
        version: int = 1,
        make_room: Callable[[Report], None] | None = None,
        memory_watch: MemoryWatch | None = None,
    ) -> None:
        self.name = name
        self.spec = spec
        self.version = version
        self.generation = next(_generations)  # no other instance of this process has it
        self._label = name if version == 1 else f"{name} (version {version})"
        self._open_backend = open_backend
        self._clock = clock
        self._load_lock = load_lock
        self._on_finish = on_finish
        self._make_room = make_room
        self._memory_watch = memory_watch
        self._memory: MemoryReading | None = None
        self._status = Status(name, self._label, clock)
        self._num_restarts = 0
        self._last_used_s: float | None = None
        self._backend: Backend | None = None
        self._loaded: LoadedModel | None = None
        self._service: _Service | None = None
        self._stopping = threading.Event()
        self._supervisor = threading.Thread(target=self._supervise, name=f"supervisor:{self._label}", daemon=True)

    @property
    def is_ready(self) -> bool:
        """Whether it answers requests now."""
        return self._status.is_ready

    def start(self) -> None:
        """Begin loading, in the background."""
        self._supervisor.start()

    def wait_settled(self) -> None:
        """Return once it has been ready, or has failed or stopped before."""
        self._status.settled.wait()

    def submit(self, request: Request, timing: Timing) -> Sequence:
        """Queue a request.

        Raises:
            InstanceNotReadyError: the instance is in another state than ready.
            InvalidRequestError, QueueFullError: see `Backend.prepare` and `Runner.submit`.
        """
        with self._entering() as service:
            sequence = service.backend.prepare(service.loaded, service.runner, request, timing)
            service.runner.submit(sequence)
            return sequence

    def embed(self, request: EmbeddingRequest, timing: Timing) -> EmbeddingJob:
        """Queue texts to be embedded.

        Raises:
            InstanceNotReadyError: the instance is in another state than ready.
            InvalidRequestError, QueueFullError: see `Backend.prepare_embedding` and `Embedder.submit`.
        """
        with self._entering() as service:
            job = service.backend.prepare_embedding(service.loaded, service.runner, request, timing)
            service.embedder.submit(job)
            return job

    def tokenize(self, request: TokenizeRequest) -> Tokens:
        """The tokens of a text or of messages, on the caller's thread; raises as `embed` does."""
        with self._entering() as service:
            return service.backend.tokenize(service.loaded, request)

    def detokenize(self, token_ids: tuple[int, ...]) -> str:
        """The text of tokens, on the caller's thread; raises as `embed` does."""
        with self._entering() as service:
            return service.backend.detokenize(service.loaded, token_ids)

    @contextmanager
    def _entering(self) -> Iterator[_Service]:
        """What serves now, and goes on doing so within the block."""
        with self._status.entering():
            service = self._service
            if service is None:
                raise InstanceNotReadyError(f"{self.name} has stopped: try again when it is ready")
            self._last_used_s = self._clock.wall()
            yield service

    def cancel(self, request_id: str) -> bool:
        """Cancel a request that is here; False when it is not."""
        service = self._service
        if service is None:
            return False
        return service.runner.cancel(request_id) or service.embedder.cancel(request_id)

    def requests(self) -> list[Sequence | EmbeddingJob]:
        """The requests waiting and running."""
        service = self._service
        return [] if service is None else [*service.runner.requests(), *service.embedder.requests()]

    def info(self) -> InstanceInfo:
        """A reading."""
        standing, loaded, service = self._status.read(), self._loaded, self._service
        return InstanceInfo(
            name=self.name,
            spec=self.spec,
            state=standing.state,
            reason=standing.reason,
            stage=standing.stage,
            progress=standing.progress,
            since_s=standing.since_s,
            num_restarts=self._num_restarts,
            retry_at_s=standing.retry_at_s,
            model=None if loaded is None else loaded.info,
            stats=None if service is None else service.runner.stats(),
            version=self.version,
            last_used_s=self._last_used_s,
            memory=self._memory,
        )

    def retire(self) -> None:
        """Refuse new requests from now on, and return at once; `stop` does the rest."""
        self._status.retire()

    def retire_if_idle(self) -> bool:
        """Retire what is ready and has no request; False, and nothing changes, otherwise."""
        return self._status.retire_if_idle(self._is_empty)

    def abandon(self) -> None:
        """Have the threads end as soon as they can, without waiting for that."""
        self._status.retire()
        self._stopping.set()
        service = self._service
        if service is not None:
            service.runner.refuse()
            service.embedder.refuse()

    def stop(self, drain_s: float = 0.0) -> None:
        """Refuse new requests, give running ones `drain_s` seconds, then end them and free the model. Returns when
        the threads have ended and the memory is back. Of several callers the least patient one decides."""
        self._status.retire()
        self._drain(drain_s)
        self.abandon()
        if self._supervisor.is_alive():
            self._supervisor.join()

    def _drain(self, drain_s: float) -> None:
        end = self._clock.monotonic() + drain_s
        while not self._status.is_idle(self._is_empty) and self._clock.monotonic() < end:
            if self._stopping.wait(_DRAIN_POLL_S):
                return

    def _is_empty(self) -> bool:
        return not self.requests()

    def _report(self, stage: str, fraction: float | None) -> None:
        self._status.report(stage, fraction)
        if self._stopping.is_set():
            raise InstanceNotReadyError(f"{self.name} was unloaded while it was loading")

    def _finish(self, ended: Sequence | EmbeddingJob, finished: Finished) -> None:
        if ended.request.source != WARM_UP:
            self._last_used_s = self._clock.wall()
        self._on_finish(ended, finished)

    def _supervise(self) -> None:
        failure: str | None = None
        try:
            failure = self._load() or self._serve()
        except BaseException as error:
            logger.exception("the supervisor of %s failed", self._label)
            failure = f"its supervisor failed: {type(error).__name__}: {error}; load it again"
        self._loaded = self._service = self._backend = None
        release_memory()
        if self._stopping.is_set() or self._status.is_retired:
            self._status.enter(InstanceState.STOPPED)
        else:
            self._status.enter(InstanceState.FAILED, failure)

    def _load(self) -> str | None:
        """Wait for the turn to load, and load; the reason why that failed. What loading took beyond the model, or all
        of a model that failed, is given back before the next one gets its turn."""
        while not self._load_lock.acquire(timeout=_LOCK_WAIT_S):
            if self._stopping.is_set():
                return "it was stopped before its turn to load"
        try:
            self._status.enter(InstanceState.LOADING)
            failure = self._try_to_load()
            release_memory()
            return failure
        finally:
            self._load_lock.release()

    def _try_to_load(self) -> str | None:
        try:
            self._report("starting torch", None)
            self._backend = self._open_backend()
            if self._make_room is not None:
                self._make_room(self._report)
            if self._memory_watch is not None:
                self._memory_watch.mark(self._backend, self.spec)
            with weights_apart():
                self._loaded = self._backend.load(self.spec, self._report)
        except ConsoleError as error:
            return str(error)
        except MemoryError:
            logger.exception("loading %s failed", self._label)
            return (
                "loading failed: there was not enough memory; unload another model, or ask for a smaller dtype or "
                "quantized weights"
            )
        except Exception as error:
            logger.exception("loading %s failed", self._label)
            return f"loading failed: {type(error).__name__}: {error}"
        return None

    def _serve(self) -> str | None:
        """Run workers, one after another, until stopped; the reason when another would not help."""
        pause_s = _FIRST_PAUSE_S
        for attempt in itertools.count():
            self._num_restarts = attempt
            began = self._clock.monotonic()
            try:
                reason = self._run_worker()
            except WeightsError as error:
                return str(error)
            if self._stopping.is_set() or self._status.is_retired:
                break
            if self._clock.monotonic() - began > _STEADY_S:
                pause_s = _FIRST_PAUSE_S
            self._status.enter(InstanceState.FAILED, reason, self._clock.wall() + pause_s)
            self._stopping.wait(pause_s)
            if self._stopping.is_set():
                break
            pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)
        return None

    def _run_worker(self) -> str:
        """Warm up, serve until the worker ends, and say why it did.

        Raises:
            WeightsError: the model cannot be run here, however often one tries.
        """
        backend, loaded = self._backend, self._loaded
        if backend is None or loaded is None:
            return "no model is loaded"
        self._status.enter(InstanceState.WARMING)
        if self._service is not None and loaded.info.device != "cpu":
            # Of a worker that died: the GPU's memory that it held is needed again.
            self._service = None
            release_memory()
        try:
            runner = backend.start(loaded, self._finish)
            embedder = backend.start_embedder(loaded, runner, self._finish)
            backend.warm_up(loaded, runner)
        except WeightsError:
            raise
        except Exception as error:
            logger.exception("warming up %s failed", self._label)
            return f"the warm-up failed: {type(error).__name__}: {error}"
        if self._memory is None and self._memory_watch is not None:
            self._memory = self._memory_watch.read(backend, loaded, runner, self.spec)
        worker = Worker(self.name, self._label, runner, embedder, self._stopping)
        self._service = _Service(backend, loaded, runner, embedder)
        worker.start()
        self._status.enter(InstanceState.READY)
        return worker.join()
