"""A bounded queue and the thread that writes it out in batches, so that no request waits for a disk."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

_log = logging.getLogger(__name__)
_JOIN_TIMEOUT_S = 10.0

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class WriterLimits:
    """How often to write, and how much to hold while nothing can be written (`max_pending`)."""

    interval_s: float = 0.5
    retry_s: float = 2.0
    max_batch: int = 10_000
    max_pending: int = 100_000


class BatchWriter(Generic[Item]):
    """Hands what is put to `write` in order, in batches, every `interval_s` and earlier when a batch is full.

    A batch whose `write` raises stays in memory and is tried again every `retry_s`; beyond `max_pending` the
    oldest items are dropped and counted. `write` must store a batch wholly or not at all.
    """

    def __init__(
        self, write: Callable[[Sequence[Item]], None], *, name: str, limits: WriterLimits | None = None
    ) -> None:
        self._write = write
        self._limits = limits or WriterLimits()
        self._pending: deque[Item] = deque()
        self._lock = threading.Lock()  # guards _pending, _num_dropped, _is_closed
        self._write_lock = threading.Lock()  # one batch at a time, so that order holds
        self._wake = threading.Event()
        self._is_closed = False
        self._num_dropped = 0
        self._error: str | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    @property
    def error(self) -> str | None:
        """Why the last batch could not be written; None once one was."""
        return self._error

    @property
    def num_dropped(self) -> int:
        """Items given up: beyond the bound, put after closing, or unwritable at closing."""
        return self._num_dropped

    @property
    def num_pending(self) -> int:
        return len(self._pending)

    def put(self, item: Item) -> None:
        """Queue one item. Takes microseconds, never raises; after `close` the item is dropped and counted."""
        with self._lock:
            if self._is_closed:
                self._num_dropped += 1
                return
            self._pending.append(item)
            self._drop_excess()
            is_batch_full = len(self._pending) >= self._limits.max_batch
        if is_batch_full and self._error is None:
            self._wake.set()

    def flush(self) -> None:
        """Write what is queued now; on return it is written, or `error` says why not."""
        with self._write_lock:
            for _ in range(-(-self.num_pending // self._limits.max_batch)):
                if not self._write_batch():
                    return

    def close(self) -> None:
        """Write what is left and end the thread. What cannot be written now is lost, counted and logged."""
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
        self._wake.set()
        self._thread.join(_JOIN_TIMEOUT_S)
        self.flush()
        if self._pending:
            _log.error("%s: %d records are lost: %s", self._thread.name, len(self._pending), self._error)
            self._num_dropped += len(self._pending)
            self._pending.clear()

    def _run(self) -> None:
        while not self._is_closed:
            self._wake.wait(self._limits.interval_s if self._error is None else self._limits.retry_s)
            self._wake.clear()
            self.flush()

    def _write_batch(self) -> bool:
        with self._lock:
            batch = [self._pending.popleft() for _ in range(min(len(self._pending), self._limits.max_batch))]
        try:
            self._write(batch)
        except Exception as error:  # noqa: BLE001 - whatever the reason, the thread and the records must survive it
            self._keep(batch, error)
            return False
        if self._error is not None:
            _log.info("%s: writing works again", self._thread.name)
        self._error = None
        return True

    def _keep(self, batch: list[Item], error: Exception) -> None:
        if self._error is None:
            _log.warning("%s: cannot write: %s", self._thread.name, error)
        self._error = str(error) or type(error).__name__
        with self._lock:
            self._pending.extendleft(reversed(batch))
            self._drop_excess()

    def _drop_excess(self) -> None:
        while len(self._pending) > self._limits.max_pending:
            self._pending.popleft()
            self._num_dropped += 1
