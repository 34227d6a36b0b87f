"""A request's events, from whichever instance answers it.

Whoever reads finds the first instance's failure before any of its answer was handed out, and has the next one asked;
so no thread stands between an instance and its reader.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import cast

from engine.inference.outputs import OutputStream
from engine.inference.request import Delta, Event, Finished, FinishReason


@dataclass(frozen=True, slots=True)
class Sent:
    """A request at one instance."""

    instance: str
    stream: OutputStream
    was_trial: bool


class RoutedStream(OutputStream):
    """Promises what `OutputStream` does. `retry` sends the request on after a failure, or gives None where that is not
    to be; `on_end` is told once of each instance what came of it, None for a stream that was closed before."""

    def __init__(
        self,
        first: Sent,
        retry: Callable[[Sent, Finished], Sent | None],
        on_end: Callable[[Sent, Finished | None], None],
    ) -> None:
        super().__init__(first.stream.request_id, first.stream.received_at_s, self._cancel)
        self._sent = first
        self._retry = retry
        self._on_end = on_end
        self._lock = threading.Lock()  # guards _sent, _is_closed, _is_told
        self._has_begun = False
        self._is_closed = False
        self._is_told = False

    @property
    def instance(self) -> str:
        """Who answers, or did."""
        return self._sent.instance

    @property
    def finished(self) -> Finished | None:
        """The last event; a failure that another instance may make good is none until that was tried."""
        finished = self._finished or self._sent.stream.finished
        return finished if finished is self._finished or not self._may_retry(finished) else None

    def poll(self) -> list[Event]:
        """All events waiting, at once. After a failure the next instance is asked in here."""
        return [event for event in self._sent.stream.poll() if self._take(event)]

    def wait(self, timeout_s: float | None = None) -> bool:
        """Block until `poll` has something to do."""
        return self._sent.stream.wait(timeout_s)

    def __iter__(self) -> Iterator[Event]:
        try:
            while self._finished is None:
                self.wait()
                yield from self.poll()
        finally:
            self.close()

    async def __aiter__(self) -> AsyncIterator[Event]:
        try:
            while self._finished is None:
                async with aclosing(cast(AsyncGenerator[Event], self._sent.stream.__aiter__())) as events:
                    async for event in events:
                        is_end = isinstance(event, Finished) and self._may_retry(event)
                        if await asyncio.to_thread(self._take, event) if is_end else self._take(event):
                            yield event
        finally:
            self.close()

    def close(self) -> None:
        """Cancel the request unless it has ended. Safe to call twice and from any thread."""
        if self._finished is None:
            self._cancel()

    def _cancel(self) -> None:
        with self._lock:
            self._is_closed = True
            sent = self._sent
        sent.stream.close()
        self._tell(sent, sent.stream.finished)

    def _may_retry(self, finished: Finished | None) -> bool:
        failed = finished is not None and finished.reason is FinishReason.ERROR
        return failed and not self._has_begun and not self._is_closed

    def _take(self, event: Event) -> bool:
        """Whether the reader gets this event; False for a failure after which another instance is asked."""
        if isinstance(event, Delta):
            self._has_begun = True
            return True
        sent = self._sent
        self._tell(sent, event)
        following = self._retry(sent, event) if self._may_retry(event) else None
        if following is None:
            self._finished = event
            return True
        self._go_on(following)
        return False

    def _go_on(self, following: Sent) -> None:
        with self._lock:
            self._sent, self._is_told = following, False
            is_closed = self._is_closed
        if is_closed:
            following.stream.close()
            self._tell(following, None)

    def _tell(self, sent: Sent, finished: Finished | None) -> None:
        with self._lock:
            if self._is_told or sent is not self._sent:
                return
            self._is_told = True
        self._on_end(sent, finished)
