"""The engine: the instance table, and the way in for requests from pages and API alike."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace

from engine.clock import Clock, SystemClock
from engine.config import Settings
from engine.errors import ConsoleError, InstanceExistsError, InstanceNotFoundError
from engine.inference.embedding import EmbeddingJob, EmbeddingRequest
from engine.inference.outputs import OutputStream
from engine.inference.request import Finished, Request, Timing
from engine.inference.tokens import TokenizeRequest, Tokens
from engine.instance import Backend, Instance, InstanceInfo, Role, Versions
from engine.instance.memory import MemoryWatch, Plan
from engine.latency.histogram import HistogramReading
from engine.models.spec import ModelSpec
from engine.recording import OnRecord, Recording
from engine.room import Unloaded, make_room
from engine.scheduling.unloading import RoomPlanner
from engine.tracing import Tracing
from engine.weights.sources import find_source

_KEPT_UNLOADED = 20


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
    key_id: str | None = None


class Engine:
    """Serves models in this process.

    All methods may be called from any thread. `on_record` receives one record per ended request, on the worker's
    thread, so it must return at once; `on_refusal` one per request that was not let in, on its caller's. With
    `unload_idle`, a model that does not fit by the plan of `fits` has idle models unloaded before it is loaded, least
    recently used first. `plan` is what each loaded model is compared with.
    """

    def __init__(
        self,
        settings: Settings,
        on_record: OnRecord,
        clock: Clock | None = None,
        open_backend: Callable[[], Backend] | None = None,
        unload_idle: bool = False,
        fits: RoomPlanner | None = None,
        plan: Plan | None = None,
        on_refusal: OnRecord | None = None,
        tracing: Tracing | None = None,
    ) -> None:
        self.settings = settings
        self.unload_idle = unload_idle and fits is not None
        self._fits = fits
        self._plan = plan
        self._unloaded: deque[Unloaded] = deque(maxlen=_KEPT_UNLOADED)
        self._clock = clock or SystemClock()
        self._recording = Recording(on_record, on_refusal or on_record, self._clock, settings, tracing)
        self._open_backend = open_backend or self._open_local_backend
        self._models: dict[str, Versions] = {}
        self._lock = threading.Lock()
        self.load_lock = threading.Lock()  # held by whoever loads a model: loads take turns

    def load(self, spec: ModelSpec, *, is_pinned: bool = False) -> str:
        """Begin to load a model and return its name at once; `instances()` tells how it goes. A pinned one is never
        unloaded to make room.

        Raises:
            WeightsError: there is no such model.
            InstanceExistsError: the name is taken.
        """
        found = find_source(spec.source)
        name = spec.name or found.name
        versions = Versions(self._open_instance(name, spec, 1), is_pinned=is_pinned)
        with self._lock:
            present = self._models.get(name)
            if present is not None and not present.is_over:
                state = present.infos()[0].state
                raise InstanceExistsError(
                    f"an instance named {name!r} is {state} already: unload or swap it, or give another name"
                )
            self._models[name] = versions
        if present is not None:
            present.stop()
        versions.start()
        return name

    def swap(self, name: str, spec: ModelSpec, drain_s: float = 30.0) -> None:
        """Begin to replace the model that is served under `name` by `spec`, and return at once; `instances()` shows
        both. The old version answers until the new one is loaded and warm; requests that it has by then get `drain_s`
        seconds, and it is unloaded. A new version that fails is given up: the old one serves on, and the last reading
        of that name tells why. The name of `spec` plays no part.

        Raises:
            WeightsError: there is no such model.
            InstanceNotFoundError: nothing is loaded under `name`.
            InstanceExistsError: a swap of it is under way.
            InstanceNotReadyError: it is being unloaded.
        """
        find_source(spec.source)
        self._find(name).swap(lambda version: self._open_instance(name, spec, version), drain_s)

    def cancel_swap(self, name: str) -> bool:
        """Give up a swap, or forget one that failed; False when there is none or the new version serves already.

        Raises:
            InstanceNotFoundError: nothing is loaded under `name`.
        """
        return self._find(name).cancel_swap()

    def count_steps(self) -> int:
        """How many steps all instances have run: whether anything was served between two moments."""
        return sum(info.stats.num_steps for info in self.instances() if info.stats is not None)

    def pin(self, name: str, is_pinned: bool) -> None:
        """Say whether a model may be unloaded to make room for another.

        Raises:
            InstanceNotFoundError: nothing is loaded under `name`.
        """
        self._find(name).is_pinned = is_pinned

    def unload(self, name: str, drain_s: float = 30.0) -> None:
        """Stop all versions of a model and forget it: running requests get `drain_s` seconds, then they are
        cancelled. Returns when the memory is free.

        Raises:
            InstanceNotFoundError: nothing is loaded under `name`.
        """
        self._stop(self._find(name), drain_s)

    def instances(self) -> tuple[InstanceInfo, ...]:
        """A reading of every version of every model, in the order they were loaded. Of each name exactly one has the
        role `serving`, and at most one is ready."""
        return tuple(info for versions in self._all() for info in versions.infos())

    def serving(self) -> tuple[InstanceInfo, ...]:
        """A reading of the version that serves, one for each name."""
        return tuple(info for info in self.instances() if info.role is Role.SERVING)

    def generations(self) -> dict[str, int | None]:
        """Of each name a number that tells the version that serves from all others that this process ever loaded; None
        where it is not ready."""
        return {versions.name: versions.generation for versions in self._all()}

    def unloaded(self) -> tuple[Unloaded, ...]:
        """The last models that were unloaded to make room for others, the latest first."""
        return tuple(self._unloaded)

    def stream(self, request: Request) -> OutputStream:
        """Queue a request and return its events as they are produced. Closing the stream cancels the request and
        frees its cache before the next step.

        Raises:
            InvalidRequestError: a parameter is out of bounds, named by the error.
            ContextLengthError: prompt and answer do not fit.
            InstanceNotFoundError, InstanceNotReadyError, QueueFullError: it cannot run now.
        """
        timing = self._stamp()
        try:
            request.check()
            return self._find(request.model).submit(request, timing).stream
        except ConsoleError as error:
            self._recording.refuse(request, error, timing)
            raise

    def note_refusal(self, request: Request | EmbeddingRequest, error: ConsoleError) -> None:
        """Record a request that was refused before it came here, for a quota say."""
        self._recording.refuse(request, error, self._stamp())

    def note_served(self, request: Request, finished: Finished) -> None:
        """Record a request that was answered elsewhere, from a cache or by a remote instance."""
        self._recording.note(request, finished)

    def embed(self, request: EmbeddingRequest) -> EmbeddingJob:
        """Queue texts to be embedded between the steps of generation, and return at once. Closing the job cancels it.

        Raises:
            InvalidRequestError: an input is empty, or too long for the model.
            InstanceNotFoundError, InstanceNotReadyError, QueueFullError: it cannot run now.
        """
        timing = self._stamp()
        try:
            request.check()
            return self._find(request.model).embed(request, timing)
        except ConsoleError as error:
            self._recording.refuse(request, error, timing)
            raise

    def tokenize(self, request: TokenizeRequest) -> Tokens:
        """The tokens of a text, or of messages in the model's chat template; on the caller's thread.

        Raises:
            InvalidRequestError: there are none, or the template refuses the messages.
            InstanceNotFoundError, InstanceNotReadyError: no such model answers now.
        """
        request.check()
        return self._find(request.model).tokenize(request)

    def detokenize(self, model: str, token_ids: tuple[int, ...]) -> str:
        """The text of a model's tokens, special ones included; on the caller's thread. Raises as `tokenize` does."""
        return self._find(model).detokenize(token_ids)

    def token_gaps(self) -> dict[str, HistogramReading]:
        """The seconds between two tokens of a request, by model, since the engine was opened."""
        return self._recording.gaps()

    def cancel(self, request_id: str) -> bool:
        """Cancel a request; False when it is not here (it ended, or never was)."""
        return any(instance.cancel(request_id) for versions in self._all() for instance in versions.instances())

    def requests(self) -> tuple[RequestInfo, ...]:
        """The requests waiting and running now."""
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
                sequence.request.key_id,
            )
            for versions in self._all()
            for instance in versions.instances()
            for sequence in instance.requests()
        )

    def close(self) -> None:
        """Stop every instance, cancelling what runs. The engine cannot be used afterwards."""
        models = self._all()
        with self._lock:
            self._models.clear()
        for versions in models:
            versions.stop()

    def _all(self) -> list[Versions]:
        with self._lock:
            return list(self._models.values())

    def _find(self, name: str) -> Versions:
        with self._lock:
            found = self._models.get(name)
            known = ", ".join(self._models) or "none"
        if found is None:
            raise InstanceNotFoundError(f"there is no model named {name!r}; loaded: {known}")
        return found

    def _stop(self, versions: Versions, drain_s: float) -> None:
        versions.stop(drain_s)
        with self._lock:
            if self._models.get(versions.name) is versions:
                del self._models[versions.name]

    def _open_instance(self, name: str, spec: ModelSpec, version: int) -> Instance:
        spec = replace(spec, name=name)
        return Instance(
            name,
            spec,
            self._open_backend,
            self._clock,
            self.load_lock,
            self._recording.finish,
            version,
            (lambda report: self._make_room(spec, report)) if self.unload_idle else None,
            MemoryWatch(self._plan, lambda: self._others(name, version), self.load_lock),
        )

    def _others(self, name: str, version: int) -> tuple[object, ...]:
        """What all other instances are at: the same at two moments when none of them did anything in between."""
        return tuple(
            (info.name, info.version, info.state, None if info.stats is None else info.stats.num_steps)
            for info in self.instances()
            if (info.name, info.version) != (name, version)
        )

    def _make_room(self, spec: ModelSpec, report: Callable[[str, float | None], None]) -> None:
        if self._fits is not None:
            make_room(
                spec,
                self._fits,
                self.instances,
                self._unload_if_idle,
                report,
                self._clock.wall,
                self._unloaded.appendleft,
            )

    def _unload_if_idle(self, name: str) -> bool:
        with self._lock:
            versions = self._models.get(name)
        if versions is None or not versions.retire_if_idle():
            return False
        self._stop(versions, 0.0)
        return True

    def _open_local_backend(self) -> Backend:
        """Called on an instance's own thread: importing torch takes seconds."""
        from engine.backend import LocalBackend

        return LocalBackend(self.settings, self._clock, self._recording.gaps_of)

    def _stamp(self) -> Timing:
        return Timing(self._clock.wall(), self._clock.monotonic())
