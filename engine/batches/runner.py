"""One batch being worked off, on an event loop: rows are sent, waited for, written down.

Each worker holds the row that it has taken until its answer is written. So a row is in the hands of one worker, or in
the file of answers, or will be found missing there by whoever opens that next; there is no fourth place.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from engine.batches.batch import Batch, Counts
from engine.batches.ledger import Ledger
from engine.batches.rows import Place, Row, RowReader

SYNC_S = 1.0
_LONGEST_PAUSE_S = 30.0
_FIRST_PAUSE_S = 0.5
_MAX_DEATHS = 3


@dataclass(frozen=True, slots=True)
class RowAnswer:
    """What an endpoint answered, as it would have over HTTP. `code` is the error's word, where there is one."""

    status_code: int
    request_id: str
    body: Any
    code: str | None = None
    retry_after_s: float | None = None


Answer = Callable[[Batch, Row], Awaitable[RowAnswer]]


class Ending(StrEnum):
    """Why a batch is not worked on any more."""

    DONE = "done"
    EXPIRED = "expired"
    CANCELLED = "cancelled"


class BatchRun:
    """Works one batch off. `slots` bounds the rows that all batches together have in flight; `num_workers` is how many
    a batch may have. All methods but `counts` belong to the loop's thread."""

    def __init__(self, batch: Batch, answer: Answer, slots: asyncio.Semaphore, num_workers: int) -> None:
        self.batch = batch
        self.held_up: str | None = None
        self._answer = answer
        self._slots = slots
        self._num_workers = num_workers
        self._stop = asyncio.Event()
        self._ledger: Ledger | None = None
        self._total = 0

    def counts(self) -> Counts:
        """How far it is, for any thread."""
        ledger = self._ledger
        return self.batch.counts if ledger is None else Counts(self._total, ledger.num_completed, ledger.num_failed)

    def stop(self) -> None:
        """Have `work_off` cancel what is in flight and return."""
        self._stop.set()

    async def work_off(
        self, places: tuple[Place, ...], reader: RowReader, ledger: Ledger, remaining_s: float
    ) -> Ending:
        """Have every row answered that the ledger does not have, for `remaining_s` at most.

        Raises:
            OSError: an answer cannot be written, or a row not read; what was in flight is cancelled.
        """
        self._total, self._ledger = len(places), ledger
        pending = iter([place for place in places if not ledger.has(place.custom_id)])
        if remaining_s <= 0:
            return Ending.EXPIRED
        work = asyncio.create_task(self._work(pending, reader, ledger))
        stop = asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait({work, stop}, timeout=remaining_s, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                await work
                return Ending.DONE
            return Ending.CANCELLED if self._stop.is_set() else Ending.EXPIRED
        finally:
            await _cancel(work, stop)

    async def _work(self, pending: Iterator[Place], reader: RowReader, ledger: Ledger) -> None:
        syncing = asyncio.create_task(_sync_now_and_then(ledger))
        workers = [asyncio.create_task(self._take_rows(pending, reader, ledger)) for _ in range(self._num_workers)]
        try:
            await asyncio.gather(*workers)
        finally:
            await _cancel(*workers, syncing)

    async def _take_rows(self, pending: Iterator[Place], reader: RowReader, ledger: Ledger) -> None:
        for place in pending:
            answer = await self._insist(reader.read(place))
            is_error = answer.status_code >= 400
            ledger.add(answered_line(self.batch, place, answer), is_error=is_error)

    async def _insist(self, row: Row) -> RowAnswer:
        """The answer that stands. What only says that now is a bad moment is none: then it waits, without a slot, and
        asks again."""
        num_tries = 0
        while True:
            async with self._slots:
                answer = await self._answer(self.batch, row)
            num_tries += 1
            if not is_worth_waiting(answer, num_tries):
                self.held_up = None
                return answer
            self.held_up = _sentence(answer)
            await asyncio.sleep(pause_s(answer, num_tries))


def is_worth_waiting(answer: RowAnswer, num_tries: int) -> bool:
    """Whether the same row may get another answer later: a quota or a queue is full, the model is not there at present
    (it was when the batch began), or, a few times, the thread that ran it ended."""
    if answer.status_code in (429, 503):
        return True
    if answer.code == "model_not_found":
        return True
    return answer.code == "worker_died" and num_tries < _MAX_DEATHS


def pause_s(answer: RowAnswer, num_tries: int) -> float:
    """Seconds until the next try: what the answer says, else twice as long each time, half a minute at most."""
    if answer.retry_after_s is not None:
        return min(answer.retry_after_s, _LONGEST_PAUSE_S)
    return float(min(_FIRST_PAUSE_S * 2 ** min(num_tries - 1, 10), _LONGEST_PAUSE_S))


def answered_line(batch: Batch, place: Place, answer: RowAnswer) -> dict[str, Any]:
    """The line of a row that was answered."""
    response = {"status_code": answer.status_code, "request_id": answer.request_id, "body": answer.body}
    return {"id": row_id(batch, place), "custom_id": place.custom_id, "response": response, "error": None}


def expired_lines(batch: Batch, places: Iterable[Place], ledger: Ledger) -> Iterator[dict[str, Any]]:
    """The lines of the rows that were not answered in time."""
    error = {
        "code": "batch_expired",
        "message": f"the row was not run within {batch.expires_at_s - batch.created_at_s:,.0f} s: send it again",
    }
    for place in places:
        if not ledger.has(place.custom_id):
            yield {"id": row_id(batch, place), "custom_id": place.custom_id, "response": None, "error": error}


def row_id(batch: Batch, place: Place) -> str:
    """The same for the same row, whenever it is run."""
    return f"batch_req_{batch.id.removeprefix('batch_')}_{place.line}"


def _sentence(answer: RowAnswer) -> str:
    error = answer.body.get("error") if isinstance(answer.body, dict) else None
    return str(error.get("message")) if isinstance(error, dict) else f"it was answered {answer.status_code}"


async def _sync_now_and_then(ledger: Ledger) -> None:
    while True:
        await asyncio.sleep(SYNC_S)
        await asyncio.to_thread(ledger.sync)


async def _cancel(*tasks: asyncio.Task[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
