"""The batches of this console: made, followed and cancelled from any thread, worked off on a thread of their own.

How a row is answered is told by whoever serves the API (`resume`); until then batches are kept and wait.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import math
import os
import threading
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from engine.batches.batch import CANCELLABLE, OPEN, WINDOW_S, Batch, BatchStatus
from engine.batches.course import Course
from engine.batches.errors import (
    BatchEndedError,
    BatchesUnavailableError,
    BatchUnknownError,
    FileInUseError,
    TooManyBatchesError,
)
from engine.batches.file_store import FileStore
from engine.batches.files import BATCH, Files
from engine.batches.runner import Answer, BatchRun
from engine.batches.store import BatchStore
from engine.clock import Clock
from engine.errors import InvalidRequestError, StoreError
from engine.loop_thread import LoopThread
from engine.state.database import Database

MAX_IN_FLIGHT = 64
MAX_OPEN = 20

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Service:
    """How rows get their answers, and why a model cannot be asked for."""

    answer: Answer
    refuse_model: Callable[[str], str | None]


class Batches:
    """`max_running` is the number of places in an instance's batch, of which rows take half at most, so that whoever
    asks at the same time finds one free; what waits for a place besides has precedence by its priority."""

    def __init__(
        self, home: Path, database: Database, max_running: int, clock: Clock, file_ttl_s: float = math.inf
    ) -> None:
        self._folder = home / "batches"
        self._store = BatchStore(database)
        self._clock = clock
        self.files = Files(self._folder, FileStore(database), clock.wall, file_ttl_s)
        self.num_in_flight = max(1, min(MAX_IN_FLIGHT, max_running // 2))
        self._slots = asyncio.Semaphore(self.num_in_flight)
        self._loop = LoopThread("batches")
        self._lock = threading.Lock()  # one change of a batch's status at a time; guards _runs
        self._runs: dict[str, BatchRun] = {}
        self._service: _Service | None = None
        self._lease: int | None = None
        self._why_not: str | None = None  # why no batch can be worked on here

    def resume(self, answer: Answer, refuse_model: Callable[[str], str | None]) -> None:
        """From now on rows can be answered: go on with every batch that has work left. Where another process works on
        the batches of this home folder, or it cannot be written, they are left alone, and new ones are refused."""
        self._service = _Service(answer, refuse_model)
        try:
            self._why_not = self._take_lease()
            left = () if self._why_not is not None else self._store.open()
            self.remove_expired()
        except StoreError as error:
            self._why_not, left = str(error), ()
        if self._why_not is not None:
            logger.warning("batches are not worked on: %s", self._why_not)
        for batch in left:
            self._begin(batch)

    def create(
        self, key_id: str | None, input_file_id: str, endpoint: str, metadata: Mapping[str, str] | None = None
    ) -> Batch:
        """Make a batch of a file's rows and begin with it.

        Raises:
            FileUnknownError: the key has no such file.
            InvalidRequestError: the file was not uploaded for this.
            TooManyBatchesError: the key has `MAX_OPEN` under way.
            BatchesUnavailableError: this process cannot work on batches.
            StoreError: it cannot be kept.
        """
        if self._why_not is not None:
            raise BatchesUnavailableError(self._why_not)
        file = self.files.get(input_file_id, key_id)
        if file.purpose != BATCH:
            raise InvalidRequestError(
                f"the file {file.id} has the purpose {file.purpose!r}; upload one with purpose={BATCH!r}",
                "input_file_id",
            )
        with self._lock:
            batch = self._add(key_id, file.id, endpoint, metadata)
        self._begin(batch)
        return batch

    def get(self, batch_id: str, key_id: str | None) -> Batch:
        """A batch as it stands.

        Raises:
            BatchUnknownError: the key has none by that id.
        """
        batch = self._store.get(batch_id)
        if batch is None or batch.key_id != key_id:
            raise BatchUnknownError(f"there is no batch {batch_id[:80]!r} that was made with this key")
        return self._with_progress(batch)

    def list(self, key_id: str | None, after: str | None = None, limit: int = 20) -> tuple[Batch, ...]:
        """A key's batches, newest first, those after the batch `after`. Raises as `get` does."""
        last = None if after is None else self.get(after, key_id)
        return tuple(map(self._with_progress, self._store.list(key_id, last, limit)))

    def latest(self, limit: int = 20) -> tuple[Batch, ...]:
        """The newest batches of all keys."""
        return tuple(map(self._with_progress, self._store.latest(limit)))

    def cancel(self, batch_id: str, key_id: str | None) -> Batch:
        """Have a batch end: rows in flight are cancelled within a step, what is answered is kept. One that is being
        cancelled is returned as it is.

        Raises:
            BatchUnknownError: the key has none by that id.
            BatchEndedError: it has ended, or is about to.
        """
        self.get(batch_id, key_id)
        with self._lock:
            batch = self._stored(batch_id)
            if batch.status not in CANCELLABLE and batch.status is not BatchStatus.CANCELLING:
                raise BatchEndedError(f"the batch {batch.id} is {batch.status}: there is nothing left to cancel")
            if batch.status is not BatchStatus.CANCELLING:
                batch = batch.to(BatchStatus.CANCELLING, self._clock.wall())
                self._store.replace(batch)
            run = self._runs.get(batch_id)
        if run is not None:
            self._loop.call(run.stop)
        return self._with_progress(batch)

    def delete_file(self, file_id: str, key_id: str | None) -> None:
        """Remove a file of this key.

        Raises:
            FileUnknownError: the key has none by that id.
            FileInUseError: a batch reads it.
        """
        self._delete_file(self.files.get(file_id, key_id).id)

    def remove_expired(self) -> None:
        """Remove the files of all keys whose time is over, but for those that a batch which has not ended reads."""
        for file in self.files.expired():
            with suppress(FileInUseError):
                self._delete_file(file.id)

    def open_upload(self, key_id: str | None) -> Path:
        """As `Files.open_upload`, once what has expired is gone."""
        self.remove_expired()
        return self.files.open_upload(key_id)

    def close(self) -> None:
        """Cancel the rows in flight; the next start goes on with them."""
        self._service = None
        self._loop.close()
        if self._lease is not None:
            os.close(self._lease)
            self._lease = None

    def _delete_file(self, file_id: str) -> None:
        with self._lock:  # no batch of it begins meanwhile
            reader = self._store.reader_of(file_id)
            if reader is not None:
                raise FileInUseError(f"the batch {reader} reads {file_id}: cancel it, or wait for its end")
            self.files.delete(file_id)

    def _take_lease(self) -> str | None:
        """Hold the folder, so that two processes do not run the same rows; the system takes it from a process that is
        killed. The sentence that says why it cannot be held, where it cannot."""
        if self._lease is not None:
            return None
        try:
            self.files.make_folder()
            handle = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            return f"{self._folder} cannot be used ({error.strerror or error}): make it writable and start again"
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            return f"another console works on the batches in {self._folder}: use that one, or stop it and start again"
        self._lease = handle
        return None

    def _add(self, key_id: str | None, input_file_id: str, endpoint: str, metadata: Mapping[str, str] | None) -> Batch:
        if self._store.count_open(key_id) >= MAX_OPEN:
            raise TooManyBatchesError(f"{MAX_OPEN} batches of this key are under way, which is the most: wait for one")
        self.files.get(input_file_id, key_id)  # it may have been deleted meanwhile
        now_s = self._clock.wall()
        identifier = uuid.uuid4().hex
        batch = Batch(
            id=f"batch_{identifier}",
            key_id=key_id,
            endpoint=endpoint,
            input_file_id=input_file_id,
            output_file_id=f"file-{uuid.uuid4().hex}",
            error_file_id=f"file-{uuid.uuid4().hex}",
            created_at_s=now_s,
            expires_at_s=now_s + WINDOW_S,
            metadata=metadata,
        )
        self._store.add(batch)
        return batch

    def _stored(self, batch_id: str) -> Batch:
        batch = self._store.get(batch_id)
        if batch is None:
            raise BatchUnknownError(f"there is no batch {batch_id!r} any more")
        return batch

    def _with_progress(self, batch: Batch) -> Batch:
        run = self._runs.get(batch.id)
        return batch if run is None or not batch.is_open else replace(batch, counts=run.counts(), held_up=run.held_up)

    def _begin(self, batch: Batch) -> None:
        service = self._service
        if service is None:
            return
        run = BatchRun(batch, service.answer, self._slots, self.num_in_flight)
        with self._lock:
            if batch.id in self._runs:
                return
            self._runs[batch.id] = run
        self._loop.run(self._follow(run, Course(self.files, self._move, service.refuse_model, self._clock)))

    async def _follow(self, run: BatchRun, course: Course) -> None:
        try:
            await course.follow(run)
        finally:
            with self._lock:
                self._runs.pop(run.batch.id, None)

    def _move(self, batch_id: str, status: BatchStatus | None, **changes: Any) -> Batch:
        """See `course.Move`."""
        with self._lock:
            batch = self._stored(batch_id)
            if status is None or (batch.status is BatchStatus.CANCELLING and status in OPEN):
                return batch
            batch = replace(batch, **changes).to(status, self._clock.wall())
            self._store.replace(batch)
            return batch
