"""A batch's way from wherever it stands to its end: rows checked, worked off, files handed over.

Every step can be taken again: a process that is killed anywhere in here finds, when it is started again, the status
that was last written and the rows that are done, and goes on from there.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol

from engine.batches.batch import Batch, BatchStatus, Counts, LineError
from engine.batches.files import BATCH_OUTPUT, Files
from engine.batches.ledger import Ledger
from engine.batches.rows import Index, RowReader, index_rows
from engine.batches.runner import BatchRun, Ending, expired_lines
from engine.clock import Clock
from engine.errors import StoreError

PAUSE_S = 10.0
_ENDS = {
    Ending.DONE: BatchStatus.COMPLETED,
    Ending.EXPIRED: BatchStatus.EXPIRED,
    Ending.CANCELLED: BatchStatus.CANCELLED,
}

logger = logging.getLogger(__name__)


class Move(Protocol):
    """Writes a batch's new status, and gives the batch as it then stands. One that is to be cancelled stays so until
    it has ended, whatever else it is told to come to."""

    def __call__(self, batch_id: str, status: BatchStatus | None, **changes: Any) -> Batch: ...


class Course:
    """Takes batches to their ends. `refuse_model` says why a model cannot be asked for, or gives None."""

    def __init__(self, files: Files, move: Move, refuse_model: Callable[[str], str | None], clock: Clock) -> None:
        self._files = files
        self._move = move
        self._refuse_model = refuse_model
        self._clock = clock

    async def follow(self, run: BatchRun) -> None:
        """Return when the batch has ended. Where the disk or the database does not take what is written, what is in
        flight is given up, and everything tried again after a while."""
        while True:
            try:
                await self._follow(run)
                return
            except (OSError, StoreError) as error:
                logger.error("the batch %s is held up: %s", run.batch.id, error)
                run.held_up = str(error)
                await asyncio.sleep(PAUSE_S)
            except Exception as error:
                logger.exception("the batch %s failed", run.batch.id)
                told = LineError("internal_error", f"the batch failed ({type(error).__name__}): the log has the reason")
                self._move(run.batch.id, BatchStatus.FAILED, errors=(told,), counts=run.counts())
                return

    async def _follow(self, run: BatchRun) -> None:
        batch = run.batch = self._move(run.batch.id, None)
        if not batch.is_open:
            return
        index = await asyncio.to_thread(self._index, batch)
        if index.errors:
            self._move(batch.id, BatchStatus.FAILED, errors=index.errors)
            return
        if batch.status is BatchStatus.VALIDATING:
            model = next(iter(index.models)) if len(index.models) == 1 else None
            counts = Counts(len(index.places))
            batch = run.batch = self._move(batch.id, BatchStatus.IN_PROGRESS, counts=counts, model=model)
        await self._work_off(run, index)

    def _index(self, batch: Batch) -> Index:
        """The rows of its file. Only a batch that begins is told of models that are not there."""
        file = self._files.path(batch.input_file_id)
        refuse = self._refuse_model if batch.status is BatchStatus.VALIDATING else lambda _: None
        try:
            return index_rows(file, batch.endpoint, refuse)
        except FileNotFoundError:
            return Index((), (LineError("file_missing", f"the bytes of {batch.input_file_id} are gone"),), frozenset())

    async def _work_off(self, run: BatchRun, index: Index) -> None:
        batch = run.batch
        ids = (batch.input_file_id, batch.output_file_id, batch.error_file_id)
        source, output, errors = map(self._files.path, ids)
        with (
            RowReader(source, batch.endpoint) as reader,
            Ledger(output, errors) as ledger,
        ):
            ending = await self._ending(run, index, reader, ledger)
            if ending is Ending.EXPIRED:
                for line in expired_lines(batch, index.places, ledger):
                    ledger.add(line, is_error=True)
            await asyncio.to_thread(ledger.sync)
            counts = Counts(len(index.places), ledger.num_completed, ledger.num_failed)
        await asyncio.to_thread(self._hand_over, batch, _ENDS[ending], counts)

    async def _ending(self, run: BatchRun, index: Index, reader: RowReader, ledger: Ledger) -> Ending:
        """Work it off, as far as it is to be."""
        status = run.batch.status
        if status is BatchStatus.IN_PROGRESS:
            remaining_s = run.batch.expires_at_s - self._clock.wall()
            ending = await run.work_off(index.places, reader, ledger, remaining_s)
            if ending is not Ending.DONE:
                return ending
            status = self._move(run.batch.id, BatchStatus.FINALIZING).status
        return Ending.CANCELLED if status is BatchStatus.CANCELLING else Ending.DONE

    def _hand_over(self, batch: Batch, status: BatchStatus, counts: Counts) -> None:
        """Make what was written files of the batch's key; an empty one goes."""
        self._register(batch, batch.output_file_id, "output", has_lines=counts.completed > 0)
        self._register(batch, batch.error_file_id, "error", has_lines=counts.failed > 0)
        has = {"has_output": counts.completed > 0, "has_errors": counts.failed > 0}
        self._move(batch.id, status, counts=counts, **has)

    def _register(self, batch: Batch, file_id: str, kind: str, *, has_lines: bool) -> None:
        if has_lines:
            self._files.register(file_id, f"{batch.id}_{kind}.jsonl", BATCH_OUTPUT, batch.key_id)
        else:
            with suppress(FileNotFoundError):
                self._files.path(file_id).unlink()
