"""The one door to DuckDB: request records go in by a queue, numbers about them come out by queries.

One process owns the file. A file that cannot be opened is left as it is and the store works in memory, so
that the console always starts; `warning` says so.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Self

import duckdb
import numpy as np
from numpy.typing import NDArray

from engine.errors import StoreError
from engine.latency import query
from engine.latency.filter import EVERYTHING, RecordFilter
from engine.latency.record import RequestRecord
from engine.latency.schema import COLUMNS, STATEMENTS, TABLE, to_row
from engine.latency.summary import DistributionPoint, LatencySummary, Metric, SeriesBucket
from engine.latency.totals import Totals
from engine.latency.writer import BatchWriter, WriterLimits

_log = logging.getLogger(__name__)

FILE_NAME = "measurements.duckdb"
IN_MEMORY = ":memory:"


class RecordStore:
    """Request records, kept in `path` or, when that is None, in memory until `close`.

    Every method may be called from any thread. Reads see a record within half a second of its `append`, or at
    once after `flush`, and raise StoreError when the file cannot be read. kill -9 loses at most the last
    second.

    Attributes:
        totals: what the records appended since the opening come to.
        path: the file that records are kept in; None in memory.
        warning: why the file that was asked for is not used, in one sentence for a person; None when it is.
    """

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        path: Path | None,
        warning: str | None,
        limits: WriterLimits | None = None,
    ) -> None:
        self.totals = Totals()
        self.path = path
        self.warning = warning
        self._connection = connection
        self._idle = threading.Condition()  # guards _num_cursors, _is_closed
        self._num_cursors = 0
        self._is_closed = False
        self._num_refused = 0
        self._writer = BatchWriter(self._write, name="record-writer", limits=limits)

    @classmethod
    def open(cls, path: Path | None, *, limits: WriterLimits | None = None) -> Self:
        """Open the file `path` (usually `FILE_NAME` in the console's home), made with its folder where it is
        missing; None for memory. Never fails for the file's sake: see `warning`."""
        if path is None:
            return cls(_connect(IN_MEMORY), None, None, limits)
        was_there = path.exists()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            return cls(_connect(str(path)), path, None, limits)
        except (duckdb.Error, OSError) as error:
            warning = _explain_unopened(path, error)
            if not was_there and not _is_locked(error):
                _remove_empty(path)
        _log.warning(warning)
        return cls(_connect(IN_MEMORY), None, warning, limits)

    @property
    def error(self) -> str | None:
        """Why records are not being saved at the moment, with the remedy; None when they are."""
        if self._writer.error is None:
            return None
        return (
            f"Request history cannot be saved to {self.path or 'memory'}: {self._writer.error}. Free"
            f" space there or make it writable; {self._writer.num_pending} records wait in memory until then."
        )

    @property
    def num_dropped(self) -> int:
        """Records lost since the store was opened: too many waited, or DuckDB refused their values."""
        return self._writer.num_dropped + self._num_refused

    def append(self, record: RequestRecord) -> None:
        """Count a record and queue it for writing. Costs microseconds and never raises."""
        self._writer.put(record)
        with suppress(TypeError):  # a value of a wrong type; the writer refuses it too, counts it and says so
            self.totals.add(record)

    def flush(self) -> None:
        """Write what was appended; on return it can be read, or `error` says why not."""
        self._writer.flush()

    def close(self) -> None:
        """Write what was appended, let running reads end, and release the file. Afterwards reads raise
        StoreError and appends are dropped and counted."""
        self._writer.close()
        with self._idle:
            self._is_closed = True
            self._idle.wait_for(lambda: self._num_cursors == 0)
            self._connection.close()

    def summarize(self, filter: RecordFilter = EVERYTHING) -> LatencySummary:
        """Percentiles, counts and tokens of the records that fit."""
        return query.summarize(self, filter)

    def series(self, filter: RecordFilter = EVERYTHING, num_buckets: int = 60) -> tuple[SeriesBucket, ...]:
        """Percentiles and counts of `num_buckets` equal spans of the time range, oldest first."""
        return query.series(self, filter, num_buckets)

    def distribution(
        self, filter: RecordFilter, metric: Metric, num_points: int = 200
    ) -> tuple[DistributionPoint, ...]:
        """Points of the metric's empirical distribution, from its minimum to its maximum."""
        return query.distribution(self, filter, metric, num_points)

    def recent(self, filter: RecordFilter = EVERYTHING, limit: int = 100) -> tuple[RequestRecord, ...]:
        """The newest records that fit, newest first."""
        return query.recent(self, filter, limit)

    def models(self) -> tuple[str, ...]:
        """The names of the models that have records, sorted."""
        return query.models(self)

    def keys(self) -> tuple[str, ...]:
        """The ids of the API keys that have records, sorted."""
        return query.keys(self)

    def rows(self, sql: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """All rows that a query answers with."""
        try:
            with self._cursor() as cursor:
                return cursor.execute(sql, parameters).fetchall()
        except duckdb.Error as error:
            raise self._unreadable(error) from error

    def column(self, sql: str, parameters: Sequence[object] = ()) -> NDArray[np.float64]:
        """The first column that a query answers with, without NULLs in it."""
        try:
            with self._cursor() as cursor:
                (values, *_) = cursor.execute(sql, parameters).fetchnumpy().values()
        except duckdb.Error as error:
            raise self._unreadable(error) from error
        return np.asarray(values, dtype=np.float64)

    @contextmanager
    def _cursor(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A connection of the caller's own. DuckDB refuses to close while one is at work, so they are counted."""
        with self._idle:
            if self._is_closed:
                raise StoreError("Request history is closed, because the console is shutting down; start it again.")
            self._num_cursors += 1
        try:
            with closing(self._connection.cursor()) as cursor:
                yield cursor
        finally:
            with self._idle:
                self._num_cursors -= 1
                self._idle.notify_all()

    def _write(self, batch: Sequence[RequestRecord]) -> None:
        """Store the batch in one transaction, without the records whose values DuckDB refuses."""
        try:
            with self._cursor() as cursor:
                try:
                    with cursor.appender(TABLE, columns=list(COLUMNS)) as appender:
                        appender.append_rows(map(to_row, batch))
                except (duckdb.DataError, duckdb.ProgrammingError):
                    self._num_refused += _append_one_by_one(cursor, batch)
        except duckdb.Error as error:
            raise StoreError(_first_line(error)) from error

    def _unreadable(self, error: duckdb.Error) -> StoreError:
        return StoreError(
            f"Request history cannot be read from {self.path or 'memory'}: {_first_line(error)}. If the file"
            f" is damaged, stop the console, move the file away and start again."
        )


def _connect(target: str) -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect(target)
    try:
        for statement in STATEMENTS:
            connection.execute(statement)
    except duckdb.Error:
        connection.close()
        raise
    return connection


def _append_one_by_one(cursor: duckdb.DuckDBPyConnection, batch: Sequence[RequestRecord]) -> int:
    """Store what DuckDB accepts of a batch that has a bad value, and return how many it refused: one bad
    record must not keep all later ones from being written."""
    num_refused = 0
    with cursor.appender(TABLE, columns=list(COLUMNS)) as appender:
        for record in batch:
            try:
                appender.append_row(*to_row(record))
            except (duckdb.DataError, duckdb.ProgrammingError) as error:
                num_refused += 1
                _log.error("request %s is not recorded: %s", ascii(record.request_id), _first_line(error))
    return num_refused


def _explain_unopened(path: Path, error: Exception) -> str:
    reason = _first_line(error)
    if _is_locked(error):
        cause = f"{path} is in use by another process"
        remedy = "stop that one, or give this console another CONSOLE_HOME, and start again"
    elif "not a valid DuckDB" in reason or "orrupt" in reason or "checksum" in reason:
        cause = f"{path} is damaged or not a DuckDB file"
        remedy = "move it away (it was left as it is) and start again"
    else:
        cause = f"{path} cannot be opened ({reason})"
        remedy = "free space, make the folder writable or set CONSOLE_HOME to another one, and start again"
    return f"Request history is kept in memory only and starts empty, because {cause}; {remedy}."


def _is_locked(error: Exception) -> bool:
    return "Could not set lock" in str(error)


def _remove_empty(path: Path) -> None:
    """A full disk leaves a file of no bytes behind, which the next start would take for a damaged one."""
    if path.is_file() and path.stat().st_size == 0:
        path.unlink()


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
