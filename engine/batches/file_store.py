"""What is known of uploaded files and of batches' outputs, in the state database, one row each."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from sqlalchemy import BigInteger, Column, Double, MetaData, String, Table, Text, delete, func, insert, select, tuple_

from engine.state.database import Database

_METADATA = MetaData()
_TABLE = Table(
    "files",
    _METADATA,
    Column("id", String(64), primary_key=True),
    Column("key_id", String(64)),
    Column("filename", Text, nullable=False),
    Column("purpose", String(32), nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("created_at_s", Double, nullable=False, index=True),
)


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file that a key uploaded, or that a batch of it wrote. `created_at_s` counts seconds since the epoch."""

    id: str
    key_id: str | None
    filename: str
    purpose: str
    size_bytes: int
    created_at_s: float


class Totals(NamedTuple):
    """How many files there are, and their bytes."""

    num_files: int
    size_bytes: int


_ALL: Any = select(func.count(), func.coalesce(func.sum(_TABLE.c.size_bytes), 0))


class FileStore:
    """Files by id. Every method may be called from any thread, is one transaction, and raises StoreError when the
    database cannot do it."""

    def __init__(self, database: Database) -> None:
        self._database = database
        database.create_tables(_METADATA)

    def put(self, file: StoredFile) -> None:
        """Keep it, in place of what was there by its id."""
        with self._database.begin() as connection:
            connection.execute(delete(_TABLE).where(_TABLE.c.id == file.id))
            connection.execute(insert(_TABLE).values(asdict(file)))

    def get(self, file_id: str, key_id: str | None) -> StoredFile | None:
        """None when this key has none by that id."""
        query = select(_TABLE).where(_TABLE.c.id == file_id, _TABLE.c.key_id.is_not_distinct_from(key_id))
        with self._database.begin() as connection:
            row = connection.execute(query).mappings().one_or_none()
        return None if row is None else StoredFile(**row)

    def list(
        self,
        key_id: str | None,
        purpose: str | None = None,
        after: StoredFile | None = None,
        limit: int = 100,
        *,
        is_newest_first: bool = True,
    ) -> tuple[StoredFile, ...]:
        """A key's files, those after `after` in the order asked for."""
        sign = -1 if is_newest_first else 1
        place = (sign * _TABLE.c.created_at_s, _TABLE.c.id)
        query = select(_TABLE).where(_TABLE.c.key_id.is_not_distinct_from(key_id))
        if purpose is not None:
            query = query.where(_TABLE.c.purpose == purpose)
        if after is not None:
            query = query.where(tuple_(*place) > (sign * after.created_at_s, after.id))
        with self._database.begin() as connection:
            rows = connection.execute(query.order_by(*place).limit(limit)).mappings().all()
        return tuple(StoredFile(**row) for row in rows)

    def totals(self) -> Totals:
        """Of all keys."""
        return self._totals(_ALL)

    def totals_of(self, key_id: str | None) -> Totals:
        """Of one key."""
        return self._totals(_ALL.where(_TABLE.c.key_id.is_not_distinct_from(key_id)))

    def older_than(self, created_at_s: float) -> tuple[StoredFile, ...]:
        """The files of all keys that were made before that moment."""
        query = select(_TABLE).where(_TABLE.c.created_at_s < created_at_s)
        with self._database.begin() as connection:
            rows = connection.execute(query).mappings().all()
        return tuple(StoredFile(**row) for row in rows)

    def _totals(self, query: Any) -> Totals:
        with self._database.begin() as connection:
            num_files, size_bytes = connection.execute(query).one()
        return Totals(int(num_files), int(size_bytes))

    def delete(self, file_id: str) -> None:
        """Forget it."""
        with self._database.begin() as connection:
            connection.execute(delete(_TABLE).where(_TABLE.c.id == file_id))
