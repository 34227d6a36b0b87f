"""The state of an instance, and the count of requests on their way in, under one lock.

Together, because an instance that drains must know that no request which saw it ready is still about to be queued.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from engine.clock import Clock
from engine.errors import InstanceNotReadyError
from engine.instance.reading import InstanceState

logger = logging.getLogger(__name__)

_SETTLED = frozenset({InstanceState.READY, InstanceState.FAILED, InstanceState.STOPPED})


@dataclass(frozen=True, slots=True)
class Standing:
    """A reading of the state; the fields are those of `InstanceInfo`."""

    state: InstanceState
    since_s: float
    reason: str | None = None
    retry_at_s: float | None = None
    stage: str | None = None
    progress: float | None = None


def estimate_retry_s(standing: Standing, now_s: float) -> float | None:
    """Seconds after which an instance that is not ready may be: until its restart where one is due, else as long again
    as it has been in its state, within a minute. None for one that does not get ready by itself."""
    if standing.retry_at_s is not None:
        return max(0.0, standing.retry_at_s - now_s)
    if standing.state in (InstanceState.PENDING, InstanceState.LOADING, InstanceState.WARMING):
        return min(max(now_s - standing.since_s, 1.0), 60.0)
    return None


class Status:
    """Where an instance stands. Any thread may call.

    Attributes:
        settled: set once loading has come to an end, good or bad.
    """

    def __init__(self, name: str, label: str, clock: Clock) -> None:
        self.settled = threading.Event()
        self._name = name
        self._label = label
        self._clock = clock
        self._lock = threading.RLock()
        self._standing = Standing(InstanceState.PENDING, clock.wall())
        self._num_entering = 0
        self._is_retired = False

    @property
    def is_retired(self) -> bool:
        """Whether it takes no more requests, ever."""
        return self._is_retired

    @property
    def is_ready(self) -> bool:
        return self._standing.state is InstanceState.READY

    def read(self) -> Standing:
        """A reading."""
        return self._standing

    def enter(self, state: InstanceState, reason: str | None = None, retry_at_s: float | None = None) -> None:
        """Go to another state. What is retired does not become ready again."""
        with self._lock:
            if state is InstanceState.READY and self._is_retired:
                return
            if self._standing.state is not state:
                logger.info("%s is %s%s", self._label, state, f": {reason}" if reason else "")
            self._standing = Standing(state, self._clock.wall(), reason, retry_at_s)
        if state in _SETTLED:
            self.settled.set()

    def report(self, stage: str, progress: float | None) -> None:
        """What is being done in this state."""
        with self._lock:
            standing = self._standing
            self._standing = Standing(
                standing.state, standing.since_s, standing.reason, standing.retry_at_s, stage, progress
            )

    @contextmanager
    def entering(self) -> Iterator[None]:
        """Hold off the end of draining while a request is being queued.

        Raises:
            InstanceNotReadyError: the instance is in another state than ready.
        """
        with self._lock:
            if not self.is_ready:
                because = f": {self._standing.reason}" if self._standing.reason else ""
                raise InstanceNotReadyError(
                    f"{self._name} is {self._standing.state}{because}; try again when it is ready",
                    estimate_retry_s(self._standing, self._clock.wall()),
                )
            self._num_entering += 1
        try:
            yield
        finally:
            with self._lock:
                self._num_entering -= 1

    def is_idle(self, is_empty: Callable[[], bool]) -> bool:
        """Whether nothing is on its way in and, asked after that, `is_empty` holds."""
        with self._lock:
            return self._num_entering == 0 and is_empty()

    def retire(self) -> None:
        """Take no more requests, ever: what was ready drains from now on."""
        with self._lock:
            self._is_retired = True
            if self.is_ready:
                self.enter(InstanceState.DRAINING)

    def retire_if_idle(self, is_empty: Callable[[], bool]) -> bool:
        """Retire what is ready and does nothing; False, and nothing changes, otherwise."""
        with self._lock:
            if not self.is_ready or not self.is_idle(is_empty):
                return False
            self.retire()
            return True
