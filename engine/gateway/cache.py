"""The exact response cache: whole answers to deterministic requests, and one run for identical ones at a time.

What an answer was made of is in its key, the API key that asked among it: nobody learns what others asked. Nothing is
kept that did not end by itself. A model in bfloat16 or on a GPU may answer the same request with other words in another
batch; what is kept is then one of its answers, and the same each time.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace

from engine.clock import Clock
from engine.errors import ConsoleError
from engine.gateway.answer_key import answer_key, run_key
from engine.gateway.flight import Flight, SharedStream, cancelled_for, ended_for, wait_for
from engine.gateway.kept import EncodedAnswer, EncodedChoice, KeptAnswer, KeptStore, Written
from engine.gateway.stream import RoutedStream
from engine.inference.request import Delta, Finished, FinishReason, Request, Timing
from engine.loop_thread import LoopThread

logger = logging.getLogger(__name__)

# The source of records of requests that the engine did nothing for.
CACHED = "cache"


@dataclass(frozen=True, slots=True)
class CacheRules:
    """How much is kept, and how long; nothing with a bound of 0."""

    max_bytes: int = 0
    ttl_s: float = 3_600.0


@dataclass(frozen=True, slots=True)
class CacheFigures:
    """What the cache came to since the console opened, and what it holds. Choices count one by one.

    Attributes:
        num_hits: answered from what was kept.
        num_shared: answered by another request's run.
        num_misses: had a run of their own.
        saved_s: what the engine worked on the answers that were given a second time.
    """

    num_hits: int
    num_shared: int
    num_misses: int
    num_entries: int
    size_bytes: int
    max_bytes: int
    ttl_s: float
    saved_s: float

    @property
    def hit_rate(self) -> float | None:
        """Of those that were looked up; None before the first."""
        num_asked = self.num_hits + self.num_shared + self.num_misses
        return (self.num_hits + self.num_shared) / num_asked if num_asked else None


class ResponseCache:
    """Any thread may call. `on_served` is told of each request that the engine did nothing for, on whoever's thread
    that was, `on_refused` of one that another one's refusal refused."""

    def __init__(
        self,
        rules: CacheRules,
        clock: Clock,
        on_served: Callable[[Request, Finished], None],
        on_refused: Callable[[Request, ConsoleError], None],
    ) -> None:
        self._rules = rules
        self._clock = clock
        self._on_served = on_served
        self._on_refused = on_refused
        self._lock = threading.RLock()  # guards all below, and every flight
        self._store = KeptStore(rules.max_bytes, rules.ttl_s, clock)
        self._flights: dict[bytes, Flight] = {}
        self._num_hits = self._num_shared = self._num_misses = 0
        self._saved_s = 0.0
        self._readers = LoopThread("shared-answers")

    @property
    def is_on(self) -> bool:
        """Whether anything is ever kept."""
        return self._rules.max_bytes > 0

    def stream(self, request: Request, identity: Hashable, begin: Callable[[], RoutedStream]) -> SharedStream:
        """The answer that is kept, or that of the run under way for the same request, else of the one that `begin`
        begins; raises what that raises.

        `identity` is what stands behind the model's name, see `Directory.identity`."""
        key = answer_key(request, identity)
        timing = Timing(self._clock.wall(), self._clock.monotonic())
        with self._lock:
            kept = self._store.get(key)
            if isinstance(kept, KeptAnswer):
                self._num_hits += 1
                self._saved_s += kept.engine_s
                return self._replay(kept, SharedStream(request, timing, key, _ignore, is_hit=True))
            flight, is_first = self._find_flight(key, run_key(request, key), request.key_id)
            stream = SharedStream(request, timing, key, lambda one: self._leave(flight, one), is_hit=not is_first)
            flight.join(stream)
        if is_first:
            self._begin(flight, begin)
        else:
            wait_for(flight, lambda error: self._on_refused(request, error))
        return stream

    def keep_encoded(self, key: bytes, streams: Sequence[SharedStream], identity: Hashable, written: Written) -> None:
        """Keep the HTTP answer that `streams` gave under `key`, as long as what it was made of is kept. Nothing is done
        where other than `identity` stood behind the model's name then."""
        keys = [stream.key for stream in streams]
        if keys != [answer_key(stream.request, identity) for stream in streams]:
            return
        with self._lock:
            found = [self._store.get(one) for one in keys]
            answers = [one for one in found if isinstance(one, KeptAnswer)]
            if len(answers) == len(keys):
                self._store.put(key, _encoded(streams, answers, identity, written), keys, streams[0].request.key_id)

    def find_encoded(self, key: bytes) -> EncodedAnswer | None:
        """The HTTP answer under `key`; None where there is none."""
        with self._lock:
            found = self._store.get(key)
        return found if isinstance(found, EncodedAnswer) else None

    def note_choice(self, choice: EncodedChoice, timing: Timing, request: Request) -> None:
        """A choice of an HTTP answer is given once more, to `request` this time, which came as `timing` says."""
        with self._lock:
            self._num_hits += 1
            self._saved_s += choice.engine_s
        timing = Timing(timing.received_at_s, timing.received_s, finished_s=self._clock.monotonic())
        self._on_served(request, replace(choice.finished, request_id=request.request_id, timing=timing))

    def figures(self) -> CacheFigures:
        """A reading."""
        with self._lock:
            return CacheFigures(
                self._num_hits,
                self._num_shared,
                self._num_misses,
                sum(1 for _ in self._store.answers()),
                self._store.size_bytes,
                self._rules.max_bytes,
                self._rules.ttl_s,
                self._saved_s,
            )

    def clear(self) -> None:
        """Forget all answers. Runs that are under way go on, and what they come to is kept."""
        with self._lock:
            self._store.clear()

    def close(self) -> None:
        """Cancel the runs that are read here."""
        self._readers.close()

    def _find_flight(self, key: bytes, shared: bytes, owner: str | None) -> tuple[Flight, bool]:
        """The run to join, and whether it has yet to begin."""
        found = self._flights.get(shared)
        if found is not None:
            self._num_shared += 1
            return found, False
        self._num_misses += 1
        flight = self._flights[shared] = Flight(key, shared, owner)
        return flight, True

    def _begin(self, flight: Flight, begin: Callable[[], RoutedStream]) -> None:
        try:
            upstream = flight.open(begin)
        except BaseException:
            with self._lock:
                self._forget(flight)
            raise
        self._readers.run(self._read(flight, upstream))

    async def _read(self, flight: Flight, upstream: RoutedStream) -> None:
        """Hand on what the run says. No reader of an answer holds another one up, so none of them reads the run."""
        try:
            async for event in upstream:
                with self._lock:
                    if isinstance(event, Delta):
                        flight.take(event)
                    else:
                        self._end(flight, event)
        except Exception:
            logger.exception("the answer of %s broke off", upstream.request_id)
        finally:
            with self._lock:
                self._give_up(flight)

    def _end(self, flight: Flight, finished: Finished) -> None:
        self._forget(flight)
        is_whole = finished.failure() is None
        engine_s = _engine_s(finished)
        if is_whole:
            answer = KeptAnswer((*flight.events, finished), finished, flight.instance, engine_s)
            self._store.put(flight.key, answer, owner=flight.owner)
        for listener in flight.listeners:
            if not listener.is_hit:
                listener.put(finished)
                continue
            self._saved_s += engine_s if is_whole else 0.0
            self._end_for(listener, flight.instance, ended_for(listener, finished, self._clock.monotonic()))
        flight.listeners.clear()

    def _give_up(self, flight: Flight) -> None:
        """Nobody waits for ever for a run that broke off."""
        self._forget(flight)
        for listener in flight.listeners:
            ended = cancelled_for(listener, self._clock.monotonic())
            why = "the answer broke off: send the request again"
            listener.put(replace(ended, reason=FinishReason.ERROR, error=why))
        flight.listeners.clear()

    def _leave(self, flight: Flight, listener: SharedStream) -> None:
        with self._lock:
            if listener not in flight.listeners:
                return
            if len(flight.listeners) == 1:
                self._forget(flight)
            flight.leave(listener)
            self._end_for(listener, flight.instance, cancelled_for(listener, self._clock.monotonic()))

    def _replay(self, kept: KeptAnswer, stream: SharedStream) -> SharedStream:
        finished = ended_for(stream, kept.finished, self._clock.monotonic())
        stream.catch_up([*kept.events[:-1], finished])
        self._tell(replace(stream.request, model=kept.instance), finished)
        return stream

    def _end_for(self, listener: SharedStream, instance: str, finished: Finished) -> None:
        if listener.is_hit:
            self._tell(replace(listener.request, model=instance), finished)
        listener.put(finished)

    def _tell(self, request: Request, finished: Finished) -> None:
        self._on_served(replace(request, source=CACHED), _uncounted(finished))

    def _forget(self, flight: Flight) -> None:
        if self._flights.get(flight.run_key) is flight:
            del self._flights[flight.run_key]


def _encoded(
    streams: Sequence[SharedStream], answers: Sequence[KeptAnswer], identity: Hashable, written: Written
) -> EncodedAnswer:
    choices = tuple(
        EncodedChoice(
            replace(stream.request, model=answer.instance, source=CACHED),
            _uncounted(answer.finished),
            answer.engine_s,
        )
        for stream, answer in zip(streams, answers, strict=True)
    )
    return EncodedAnswer(choices, streams[0].request.model, identity, written)


def _uncounted(finished: Finished) -> Finished:
    """No token was computed for it, so none is charged or counted."""
    return replace(finished, num_prompt_tokens=0, num_output_tokens=0)


def _engine_s(finished: Finished) -> float:
    timing = finished.timing
    began_s = timing.received_s if timing.scheduled_s is None else timing.scheduled_s
    return 0.0 if timing.finished_s is None else timing.finished_s - began_s


def _ignore(_: SharedStream) -> None:
    """An answer that is kept has nothing to cancel."""
