"""From the worker thread to whoever reads: an iterator for pages, an async iterator for the API.

The worker only appends to a deque and rings a bell, so a slow reader never holds it, and one that does not read at all
holds no more than a bounded number of tokens. A stream is read either by threads or by one event loop, not both.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import suppress

from engine.inference.request import Delta, Event, Finished

# Unread events are merged into one beyond the first number; beyond the second of tokens the request is cancelled. A
# token takes about 300 bytes here.
MAX_UNREAD_EVENTS = 1_024
MAX_UNREAD_TOKENS = 16_384


class OutputStream:
    """The events of one request, ending with `Finished`.

    Closing before that cancels the request; the engine frees its cache before the next step. So does leaving
    `MAX_UNREAD_TOKENS` unread: `overrun` is then the sentence that says so. `received_at_s` is seconds since the epoch.
    """

    def __init__(self, request_id: str, received_at_s: float, on_close: Callable[[], None]) -> None:
        self.request_id = request_id
        self.received_at_s = received_at_s
        self._on_close = on_close
        self._events: deque[Event] = deque()
        self._num_unread = 0
        self._bell = threading.Condition()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._async_bell: asyncio.Event | None = None
        self._finished: Finished | None = None
        self.overrun: str | None = None

    @property
    def finished(self) -> Finished | None:
        """The last event, once the engine has produced it, whether or not it was read."""
        return self._finished

    def put(self, event: Event) -> None:
        """Called by the worker. After `Finished` nothing more is accepted."""
        with self._bell:
            if self._finished is not None:
                return
            if isinstance(event, Finished):
                self._finished = event
            self._keep(event)
            self._bell.notify_all()
            loop, bell = self._loop, self._async_bell
        if self.overrun is not None:
            self.close()
        if loop is not None and bell is not None:
            with suppress(RuntimeError):  # the reader's loop was closed
                loop.call_soon_threadsafe(bell.set)

    def _keep(self, event: Event) -> None:
        self._events.append(event)
        if isinstance(event, Finished):
            return
        self._num_unread += max(1, len(event.tokens))
        if len(self._events) >= MAX_UNREAD_EVENTS:
            merged = merge(event for event in self._events if isinstance(event, Delta))
            self._events = deque((merged,))
        if self._num_unread > MAX_UNREAD_TOKENS:
            self.overrun = (
                f"{MAX_UNREAD_TOKENS:,} tokens were left unread: read the answer faster, or ask for a shorter one"
            )

    def poll(self) -> list[Event]:
        """All events waiting, at once and without blocking."""
        with self._bell:
            events = list(self._events)
            self._events.clear()
            self._num_unread = 0
        return events

    def wait(self, timeout_s: float | None = None) -> bool:
        """Block until an event waits or the stream has ended; False when the time ran out first."""
        with self._bell:
            return self._bell.wait_for(lambda: bool(self._events) or self._finished is not None, timeout_s)

    def __iter__(self) -> Iterator[Event]:
        try:
            while not self._is_drained():
                self.wait()
                yield from self.poll()
        finally:
            self.close()

    async def __aiter__(self) -> AsyncIterator[Event]:
        try:
            bell = self._attach(asyncio.get_running_loop())
            while not self._is_drained():
                await bell.wait()
                bell.clear()
                for event in self.poll():
                    yield event
        finally:
            self.close()

    def _is_drained(self) -> bool:
        with self._bell:
            return self._finished is not None and not self._events

    def _attach(self, loop: asyncio.AbstractEventLoop) -> asyncio.Event:
        bell = asyncio.Event()
        with self._bell:
            self._loop, self._async_bell = loop, bell
            if self._events:
                bell.set()
        return bell

    def close(self) -> None:
        """Cancel the request unless it has ended. Safe to call twice and from any thread."""
        if self._finished is None:
            self._on_close()


def merge(deltas: Iterable[Delta]) -> Delta:
    """One event that says what these say in their order."""
    taken = tuple(deltas)
    return Delta(
        "".join(delta.text for delta in taken),
        tuple(token for delta in taken for token in delta.tokens),
        tuple(piece for delta in taken for piece in delta.calls),
    )
