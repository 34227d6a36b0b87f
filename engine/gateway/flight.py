"""One run of the engine that answers several identical requests."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace

from engine.errors import ConsoleError
from engine.gateway.stream import RoutedStream
from engine.inference.outputs import OutputStream
from engine.inference.request import Delta, Event, Finished, FinishReason, Request, Timing


class SharedStream(OutputStream):
    """One reader's events of a run that others may read too, or of an answer that is kept.

    Attributes:
        is_hit: the engine does nothing for this reader: the answer is kept, or another one's run gives it.
        key: what the answer is kept under.
    """

    def __init__(
        self, request: Request, timing: Timing, key: bytes, on_close: Callable[[SharedStream], None], *, is_hit: bool
    ) -> None:
        super().__init__(request.request_id, timing.received_at_s, lambda: on_close(self))
        self.request = request
        self.timing = timing
        self.key = key
        self.is_hit = is_hit

    def catch_up(self, events: list[Event]) -> None:
        """Have these events waiting, however many they are: they take no more memory for one reader more."""
        with self._bell:
            self._events.extend(events)
            self._finished = next((event for event in events if isinstance(event, Finished)), None)


class Flight:
    """The run that answers all of `listeners`, who have the API key `owner`, and what it said so far. Whoever calls
    anything but `open` and `wait_opened` holds the lock of the cache that it belongs to."""

    def __init__(self, key: bytes, run_key: bytes, owner: str | None) -> None:
        self.key = key
        self.owner = owner
        self.run_key = run_key
        self.events: list[Event] = []
        self.listeners: list[SharedStream] = []
        self._upstream: Future[RoutedStream] = Future()

    def open(self, begin: Callable[[], RoutedStream]) -> RoutedStream:
        """Begin the run; raises what that raises, for all who wait."""
        try:
            upstream = begin()
        except BaseException as error:
            self._upstream.set_exception(error)
            raise
        self._upstream.set_result(upstream)
        return upstream

    def wait_opened(self) -> None:
        """Return once the run has begun; raises the ConsoleError for which it did not."""
        self._upstream.result()

    @property
    def instance(self) -> str:
        """Who answers, or did."""
        return self._upstream.result().instance

    def join(self, listener: SharedStream) -> None:
        """One reader more, who gets all that was said."""
        listener.catch_up(self.events)
        self.listeners.append(listener)

    def take(self, event: Delta) -> None:
        """Tell everybody. A reader that is too slow leaves by itself in here."""
        self.events.append(event)
        for listener in tuple(self.listeners):
            listener.put(event)

    def leave(self, listener: SharedStream) -> None:
        """A reader less. The run goes on while there is another."""
        self.listeners.remove(listener)
        if not self.listeners:
            self._upstream.result().close()


def ended_for(listener: SharedStream, finished: Finished, now_s: float) -> Finished:
    """How the run of another one, or a kept answer, ended for this reader: when it had all of it, and with the seed
    that it sent, which greedy answers do not depend on."""
    seed = listener.request.sampling.seed
    return replace(
        finished,
        request_id=listener.request_id,
        seed=finished.seed if seed is None else seed,
        timing=replace(listener.timing, finished_s=now_s),
    )


def cancelled_for(listener: SharedStream, now_s: float) -> Finished:
    """The end of a reader that left."""
    timing = replace(listener.timing, finished_s=now_s)
    seed = listener.request.sampling.seed or 0
    return Finished(listener.request_id, FinishReason.CANCELLED, 0, 0, seed, timing, error=listener.overrun)


def wait_for(flight: Flight, refuse: Callable[[ConsoleError], None]) -> None:
    """Return once the run that was joined has begun; what refused it refuses whoever joined it."""
    try:
        flight.wait_opened()
    except ConsoleError as error:
        refuse(error)
        raise
