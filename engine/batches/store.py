"""Batches in the state database, one row each: whose, since when and where it is as columns, the rest as JSON."""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import RootModel
from sqlalchemy import Column, Double, MetaData, String, Table, Text, delete, func, insert, select, tuple_, update

from engine.batches.batch import OPEN, Batch, BatchStatus
from engine.state.database import Database

MAX_BATCHES = 10_000

_METADATA = MetaData()
_TABLE = Table(
    "batches",
    _METADATA,
    Column("id", String(64), primary_key=True),
    Column("key_id", String(64)),
    Column("created_at_s", Double, nullable=False, index=True),
    Column("status", String(16), nullable=False, index=True),
    Column("input_file_id", String(64), nullable=False, index=True),
    Column("payload", Text, nullable=False),
)
_NEWEST_FIRST = (_TABLE.c.created_at_s.desc(), _TABLE.c.id)


class _Payload(RootModel[Batch]):
    pass


class BatchStore:
    """Batches by id. Every method may be called from any thread, is one transaction, and raises StoreError when the
    database cannot do it. Beyond `MAX_BATCHES` the oldest of those that have ended are forgotten; their files stay."""

    def __init__(self, database: Database) -> None:
        self._database = database
        database.create_tables(_METADATA)

    def add(self, batch: Batch) -> None:
        """Keep a new batch."""
        is_open = _TABLE.c.status.in_(OPEN)
        surplus = select(_TABLE.c.id).where(~is_open).order_by(*_NEWEST_FIRST).offset(MAX_BATCHES)
        with self._database.begin() as connection:
            connection.execute(insert(_TABLE).values(_columns(batch)))
            old = list(connection.execute(surplus).scalars())
            connection.execute(delete(_TABLE).where(_TABLE.c.id.in_(old)))

    def replace(self, batch: Batch) -> None:
        """Keep this in place of the batch of its id."""
        with self._database.begin() as connection:
            connection.execute(update(_TABLE).where(_TABLE.c.id == batch.id).values(_columns(batch)))

    def get(self, batch_id: str) -> Batch | None:
        """None when there is none by that id."""
        query = select(_TABLE.c.payload).where(_TABLE.c.id == batch_id)
        with self._database.begin() as connection:
            payload = connection.execute(query).scalar_one_or_none()
        return None if payload is None else _from_json(payload)

    def list(self, key_id: str | None, after: Batch | None, limit: int) -> tuple[Batch, ...]:
        """A key's batches, newest first, those after `after` in that order."""
        query = select(_TABLE.c.payload).where(_TABLE.c.key_id.is_not_distinct_from(key_id))
        if after is not None:
            place = (-_TABLE.c.created_at_s, _TABLE.c.id)
            query = query.where(tuple_(*place) > (-after.created_at_s, after.id))
        return self._all(query.order_by(*_NEWEST_FIRST).limit(limit))

    def latest(self, limit: int) -> tuple[Batch, ...]:
        """The newest batches of all keys, newest first."""
        return self._all(select(_TABLE.c.payload).order_by(*_NEWEST_FIRST).limit(limit))

    def open(self) -> tuple[Batch, ...]:
        """Those that have work left, oldest first."""
        query = select(_TABLE.c.payload).where(_TABLE.c.status.in_(OPEN))
        return self._all(query.order_by(_TABLE.c.created_at_s, _TABLE.c.id))

    def count_open(self, key_id: str | None) -> int:
        """How many of a key's batches have work left."""
        theirs = _TABLE.c.key_id.is_not_distinct_from(key_id)
        query = select(func.count()).where(theirs, _TABLE.c.status.in_(OPEN))
        with self._database.begin() as connection:
            num_open: int = connection.execute(query).scalar_one()
        return num_open

    def reader_of(self, file_id: str) -> str | None:
        """The id of a batch that still reads the file; None where none does."""
        query = select(_TABLE.c.id).where(_TABLE.c.input_file_id == file_id, _TABLE.c.status.in_(OPEN)).limit(1)
        with self._database.begin() as connection:
            return connection.execute(query).scalar_one_or_none()

    def _all(self, query: object) -> tuple[Batch, ...]:
        with self._database.begin() as connection:
            payloads: Iterable[str] = connection.execute(query).scalars().all()  # type: ignore[call-overload]
        return tuple(_from_json(payload) for payload in payloads)


def _columns(batch: Batch) -> dict[str, str | float | BatchStatus | None]:
    return {
        "id": batch.id,
        "key_id": batch.key_id,
        "created_at_s": batch.created_at_s,
        "status": batch.status.value,
        "input_file_id": batch.input_file_id,
        "payload": _Payload(batch).model_dump_json(),
    }


def _from_json(payload: str) -> Batch:
    return _Payload.model_validate_json(payload).root
