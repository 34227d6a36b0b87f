"""Conversations in the state database, one row each: what the list shows as columns, the rest as JSON."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import Column, Double, MetaData, String, Table, Text, delete, insert, select, update

from engine.state.conversation import Conversation
from engine.state.database import Database
from engine.state.payload import from_payload, to_payload

_METADATA = MetaData()
_TABLE = Table(
    "conversations",
    _METADATA,
    Column("id", String(32), primary_key=True),
    Column("title", Text, nullable=False),
    Column("created_at_s", Double, nullable=False),
    Column("updated_at_s", Double, nullable=False, index=True),
    Column("deleted_at_s", Double),
    Column("payload", Text, nullable=False),
)

# Told by its look and not by its place: a picture must not be lost because the payload is written in another way.
_DIGEST = re.compile(r"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")


@dataclass(frozen=True, slots=True)
class ConversationSummary:
    """A conversation as a list shows it. Times are seconds since the epoch."""

    id: str
    title: str
    created_at_s: float
    updated_at_s: float


class ConversationStore:
    """Conversations by id. Every method may be called from any thread, is one transaction, and raises
    StoreError when the database cannot do it; nothing is changed then."""

    def __init__(self, database: Database, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock
        database.create_tables(_METADATA)

    def save(self, conversation: Conversation) -> None:
        """Keep this version instead of the one before. A deleted conversation stays deleted: an answer that
        ends after the deletion does not bring it back."""
        values = {
            "title": conversation.title,
            "created_at_s": conversation.created_at_s,
            "updated_at_s": conversation.updated_at_s,
            "payload": to_payload(conversation),
        }
        with self._database.begin() as connection:
            changed = connection.execute(update(_TABLE).where(_TABLE.c.id == conversation.id).values(values))
            if changed.rowcount == 0:
                connection.execute(insert(_TABLE).values(id=conversation.id, **values))

    def get(self, conversation_id: str) -> Conversation | None:
        """The conversation as it was saved last; None when there is none, or a deleted one, by that id."""
        query = select(_TABLE.c.payload).where(_TABLE.c.id == conversation_id, _TABLE.c.deleted_at_s.is_(None))
        with self._database.begin() as connection:
            payload = connection.execute(query).scalar_one_or_none()
        return None if payload is None else from_payload(payload)

    def list(self, limit: int = 50) -> tuple[ConversationSummary, ...]:
        """The conversations changed last, newest first, without those deleted. Loads no turns."""
        columns = (_TABLE.c.id, _TABLE.c.title, _TABLE.c.created_at_s, _TABLE.c.updated_at_s)
        query = (
            select(*columns)
            .where(_TABLE.c.deleted_at_s.is_(None))
            .order_by(_TABLE.c.updated_at_s.desc(), _TABLE.c.id)
            .limit(limit)
        )
        with self._database.begin() as connection:
            return tuple(ConversationSummary(*row) for row in connection.execute(query))

    def delete(self, conversation_id: str) -> bool:
        """Hide the conversation; `restore` undoes it, until it is purged. False when there is none to hide."""
        return self._mark(conversation_id, was_deleted=False, deleted_at_s=self._clock())

    def restore(self, conversation_id: str) -> bool:
        """Bring a deleted conversation back as it was. False when there is none to bring back."""
        return self._mark(conversation_id, was_deleted=True, deleted_at_s=None)

    def purge(self, deleted_before_s: float) -> int:
        """Remove for good what was deleted before then, in seconds since the epoch; how many that were."""
        with self._database.begin() as connection:
            removed = connection.execute(delete(_TABLE).where(_TABLE.c.deleted_at_s < deleted_before_s))
        return removed.rowcount

    def digests(self) -> frozenset[str]:
        """The SHA-256 of every picture in every conversation, those deleted that can be brought back included; and
        whatever else in them looks like one."""
        found: set[str] = set()
        with self._database.begin() as connection:
            rows = connection.execute(select(_TABLE.c.payload).execution_options(yield_per=20))
            for payload in rows.scalars():
                found.update(_DIGEST.findall(payload))
        return frozenset(found)

    def _mark(self, conversation_id: str, *, was_deleted: bool, deleted_at_s: float | None) -> bool:
        is_kept = _TABLE.c.deleted_at_s.is_(None)
        fitting = (_TABLE.c.id == conversation_id, ~is_kept if was_deleted else is_kept)
        with self._database.begin() as connection:
            changed = connection.execute(update(_TABLE).where(*fitting).values(deleted_at_s=deleted_at_s))
        return changed.rowcount > 0
