"""Stored responses in the state database, one row each: who made it and when as columns, the rest as JSON.

The store is bounded in rows and bytes; beyond that the oldest of the key go that has most, so no key drives out what
another one keeps within its share. A response is only ever found by the key that made it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Column, Double, Integer, MetaData, String, Table, Text, delete, func, insert, select, update

from engine.state.database import Database

MAX_RESPONSES = 10_000
MAX_BYTES = 256 * 2**20

_METADATA = MetaData()
_TABLE = Table(
    "responses",
    _METADATA,
    Column("id", String(128), primary_key=True),
    Column("key_id", String(64)),
    Column("created_at_s", Double, nullable=False, index=True),
    Column("size_bytes", Integer, nullable=False),
    Column("payload", Text, nullable=False),
)


@dataclass(frozen=True, slots=True)
class StoredResponse:
    """A response object and the items that were its input, both as the API shows them."""

    response: dict[str, Any]
    input_items: tuple[dict[str, Any], ...]

    @property
    def id(self) -> str:
        identifier: str = self.response["id"]
        return identifier


class ResponseStore:
    """Responses by id. Every method may be called from any thread, is one transaction, and raises StoreError when the
    database cannot do it. `key_id` is None for callers without a key."""

    def __init__(
        self,
        database: Database,
        clock: Callable[[], float] = time.time,
        max_responses: int = MAX_RESPONSES,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        self._database = database
        self._clock = clock
        self._max_responses = max_responses
        self._max_bytes = max_bytes
        database.create_tables(_METADATA)

    def add(self, stored: StoredResponse, key_id: str | None) -> None:
        """Keep a new response; the oldest of the key that has most go where there are too many."""
        row = {"id": stored.id, "key_id": key_id, "created_at_s": self._clock(), **_payload(stored)}
        with self._database.begin() as connection:
            connection.execute(insert(_TABLE).values(row))
            kept, size_bytes = connection.execute(select(func.count(), func.sum(_TABLE.c.size_bytes))).one()
            if kept > self._max_responses or size_bytes > self._max_bytes:
                connection.execute(delete(_TABLE).where(_TABLE.c.id.in_(self._beyond_the_bounds())))

    def replace(self, stored: StoredResponse) -> None:
        """Keep this in place of the response of its id; one that was deleted meanwhile stays deleted."""
        with self._database.begin() as connection:
            connection.execute(update(_TABLE).where(_TABLE.c.id == stored.id).values(_payload(stored)))

    def get(self, response_id: str, key_id: str | None) -> StoredResponse | None:
        """None when this key has none by that id."""
        is_theirs = _TABLE.c.key_id.is_not_distinct_from(key_id)
        query = select(_TABLE.c.payload).where(_TABLE.c.id == response_id, is_theirs)
        with self._database.begin() as connection:
            payload = connection.execute(query).scalar_one_or_none()
        if payload is None:
            return None
        values = json.loads(payload)
        return StoredResponse(values["response"], tuple(values["input"]))

    def delete(self, response_id: str) -> None:
        """Forget it, for good."""
        with self._database.begin() as connection:
            connection.execute(delete(_TABLE).where(_TABLE.c.id == response_id))

    def _beyond_the_bounds(self) -> Any:
        """The ids of all that do not fit, if keys take turns to keep their newest: by rows, and by bytes."""
        newest_first = (_TABLE.c.created_at_s.desc(), _TABLE.c.id)
        own = select(
            _TABLE.c.id,
            _TABLE.c.created_at_s,
            _TABLE.c.size_bytes,
            func.row_number().over(partition_by=_TABLE.c.key_id, order_by=newest_first).label("place"),
            func.sum(_TABLE.c.size_bytes).over(partition_by=_TABLE.c.key_id, order_by=newest_first).label("bytes"),
        ).subquery()
        ties = (own.c.created_at_s.desc(), own.c.id)
        ranked = select(
            own.c.id,
            func.row_number().over(order_by=(own.c.place, *ties)).label("place"),
            func.sum(own.c.size_bytes).over(order_by=(own.c.bytes, *ties)).label("total_bytes"),
        ).subquery()
        is_beyond = (ranked.c.place > self._max_responses) | (ranked.c.total_bytes > self._max_bytes)
        return select(ranked.c.id).where(is_beyond)


def _payload(stored: StoredResponse) -> dict[str, Any]:
    payload = json.dumps({"response": stored.response, "input": stored.input_items}, separators=(",", ":"))
    return {"payload": payload, "size_bytes": len(payload)}
