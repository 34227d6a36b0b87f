"""The engine: the instance table, and the way in for requests from pages and API alike."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from engine.clock import Clock, SystemClock
from engine.config import Settings
from engine.errors import InstanceExistsError, InstanceNotFoundError
from engine.inference.outputs import OutputStream
from engine.inference.request import WARM_UP, Finished, FinishReason, Request, Timing
from engine.instance import Backend, Instance, InstanceInfo, InstanceState
from engine.latency.record import RequestRecord, Status
from engine.models.spec import ModelSpec
from engine.weights.sources import locate

if TYPE_CHECKING:
    from engine.inference.sequence import Sequence

logger = logging.getLogger(__name__)

_STATUS = {
    FinishReason.STOP: Status.SUCCESSFUL,
    FinishReason.LENGTH: Status.SUCCESSFUL,
    FinishReason.CANCELLED: Status.CANCELLED,
    FinishReason.DEADLINE: Status.ERRORED,
    FinishReason.ERROR: Status.ERRORED,
}


@dataclass(frozen=True, slots=True)
class RequestInfo:
    """A request that is here now. `age_s` counts from its receipt."""

    request_id: str
    model: str
    source: str
    is_running: bool
    age_s: float
    num_prompt_tokens: int
    num_output_tokens: int


class Engine:
    """Serves models in this process.

    All methods may be called from any thread. `on_record` receives one record per ended request, on the worker's
    thread, so it must return at once.
    """

    def __init__(
        self,
        settings: Settings,
        on_record: Callable[[RequestRecord], None],
        clock: Clock | None = None,
        open_backend: Callable[[], Backend] | None = None,
    ) -> None:
        self.settings = settings
        self._on_record = on_record
        self._clock = clock or SystemClock()
        self._open_backend = open_backend or self._open_local_backend
        self._instances: dict[str, Instance] = {}
        self._lock = threading.Lock()
        self._load_lock = threading.Lock()

    def load(self, spec: ModelSpec) -> str:
        """Begin to load a model and return the instance's name at once; `instances()` tells how it goes.

        Raises:
            WeightsError: there is no such model.
            InstanceExistsError: the name is taken.
        """
        found = locate(spec.source)
        name = spec.name or found.name
        instance = Instance(name, spec, self._open_backend, self._clock, self._load_lock, self._record)
        with self._lock:
            present = self._instances.get(name)
            if present is not None and not _is_over(present):
                raise InstanceExistsError(
                    f"an instance named {name!r} is {present.info().state} already: unload it, or give another name"
                )
            self._instances[name] = instance
        if present is not None:
            present.stop()
        instance.start()
        return name

    def unload(self, name: str, drain_s: float = 30.0) -> None:
        """Stop an instance and forget it: running requests get `drain_s` seconds, then they are cancelled.

        Raises:
            InstanceNotFoundError: there is no such instance.
        """
        instance = self._find(name)
        instance.stop(drain_s)
        with self._lock:
            if self._instances.get(name) is instance:
                del self._instances[name]

    def instances(self) -> tuple[InstanceInfo, ...]:
        """A reading of every instance, in the order they were loaded."""
        with self._lock:
            instances = list(self._instances.values())
        return tuple(instance.info() for instance in instances)

    def stream(self, request: Request) -> OutputStream:
        """Queue a request and return its events as they are produced. Closing the stream cancels the request and
        frees its cache before the next step.

        Raises:
            InvalidRequestError: a parameter is out of bounds, named by the error.
            ContextLengthError: prompt and answer do not fit.
            InstanceNotFoundError, InstanceNotReadyError, QueueFullError: it cannot run now.
        """
        timing = Timing(self._clock.wall(), self._clock.monotonic())
        request.check()
        return self._find(request.model).submit(request, timing).stream

    def cancel(self, request_id: str) -> bool:
        """Cancel a request; False when it is not here (it ended, or never was)."""
        with self._lock:
            instances = list(self._instances.values())
        return any(instance.cancel(request_id) for instance in instances)

    def requests(self) -> tuple[RequestInfo, ...]:
        """The requests waiting and running now."""
        with self._lock:
            instances = list(self._instances.values())
        now = self._clock.monotonic()
        return tuple(
            RequestInfo(
                sequence.request_id,
                instance.name,
                sequence.request.source,
                sequence.timing.scheduled_s is not None,
                now - sequence.timing.received_s,
                sequence.num_prompt_tokens,
                sequence.num_output_tokens,
            )
            for instance in instances
            for sequence in instance.requests()
        )

    def close(self) -> None:
        """Stop every instance, cancelling what runs. The engine cannot be used afterwards."""
        with self._lock:
            instances = list(self._instances.values())
            self._instances.clear()
        for instance in instances:
            instance.stop()

    def _find(self, name: str) -> Instance:
        with self._lock:
            found = self._instances.get(name)
            known = ", ".join(self._instances) or "none"
        if found is None:
            raise InstanceNotFoundError(f"there is no model named {name!r}; loaded: {known}")
        return found

    def _open_local_backend(self) -> Backend:
        """Called on an instance's own thread: importing torch takes seconds."""
        from engine.backend import LocalBackend

        return LocalBackend(self.settings, self._clock)

    def _record(self, sequence: Sequence, finished: Finished) -> None:
        if sequence.request.source == WARM_UP:
            return
        try:
            self._on_record(make_record(sequence.request, finished))
        except Exception:
            logger.exception("the record of %s is lost", sequence.request_id)


def make_record(request: Request, finished: Finished) -> RequestRecord:
    """What is kept of an ended request: its times as seconds after receipt."""
    timing = finished.timing

    def since_received(moment_s: float | None) -> float | None:
        return None if moment_s is None else moment_s - timing.received_s

    return RequestRecord(
        request_id=finished.request_id,
        model=request.model,
        source=request.source,
        received_at_s=timing.received_at_s,
        scheduled_s=since_received(timing.scheduled_s),
        first_token_s=since_received(timing.first_token_s),
        last_token_s=since_received(timing.last_token_s),
        finished_s=since_received(timing.finished_s) or 0.0,
        num_prompt_tokens=finished.num_prompt_tokens,
        num_output_tokens=finished.num_output_tokens,
        finish_reason=finished.reason.value,
        status=_STATUS[finished.reason],
        error=finished.error,
    )


def _is_over(instance: Instance) -> bool:
    info = instance.info()
    is_dead = info.state is InstanceState.FAILED and info.retry_at_s is None
    return is_dead or info.state is InstanceState.STOPPED
