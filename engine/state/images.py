"""The pictures of conversations in the state database, each once, by their digests."""

from __future__ import annotations

import time
from collections.abc import Callable, Set

from sqlalchemy import (
    Column,
    ColumnElement,
    Double,
    LargeBinary,
    MetaData,
    String,
    Table,
    delete,
    exists,
    insert,
    literal,
    select,
    update,
)

from engine.inference.images import ImagePart
from engine.state.conversation import KeptImage
from engine.state.database import Database

_METADATA = MetaData()
_TABLE = Table(
    "images",
    _METADATA,
    Column("sha256", String(64), primary_key=True),
    Column("data", LargeBinary, nullable=False),
)
# When each picture was last attached; a table of its own, so that databases without it get it. One that has no row here
# was attached before there were any.
_USES = Table(
    "image_uses",
    _METADATA,
    Column("sha256", String(64), primary_key=True),
    Column("attached_at_s", Double, nullable=False),
)


class ImageStore:
    """Pictures by digest. They stay while a conversation shows them that is there or can be brought back. Any thread
    may call; every method raises StoreError when the database cannot do it."""

    def __init__(self, database: Database, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock
        database.create_tables(_METADATA)

    def keep(self, image: ImagePart, name: str) -> KeptImage:
        """Keep the picture; one that is here already is not written again."""
        is_here, is_known = (exists().where(table.c.sha256 == image.sha256) for table in (_TABLE, _USES))
        now_s = self._clock()
        row = select(literal(image.sha256), literal(image.data, LargeBinary)).where(~is_here)
        use = select(literal(image.sha256), literal(now_s)).where(~is_known)
        with self._database.begin() as connection:
            connection.execute(insert(_TABLE).from_select(["sha256", "data"], row))
            connection.execute(insert(_USES).from_select(["sha256", "attached_at_s"], use))
            connection.execute(update(_USES).where(_USES.c.sha256 == image.sha256).values(attached_at_s=now_s))
        return KeptImage(image.sha256, image.media_type, name)

    def read(self, kept: KeptImage) -> bytes | None:
        """The bytes of its file; None where they are not here, as in a conversation from elsewhere."""
        with self._database.begin() as connection:
            data = connection.execute(select(_TABLE.c.data).where(_TABLE.c.sha256 == kept.sha256)).scalar_one_or_none()
        return None if data is None else bytes(data)

    def has_older(self, before_s: float) -> bool:
        """Is there a picture that was last attached before then, in seconds since the epoch."""
        with self._database.begin() as connection:
            return connection.execute(select(_TABLE.c.sha256).where(_is_older(before_s)).limit(1)).first() is not None

    def remove_all_but(self, shown: Set[str], before_s: float) -> int:
        """Remove the pictures whose digest is not among `shown` and that were last attached before then; how many."""
        with self._database.begin() as connection:
            older = connection.execute(select(_TABLE.c.sha256).where(_is_older(before_s))).scalars().all()
        return sum(self._remove(sha256, before_s) for sha256 in set(older) - shown)

    def _remove(self, sha256: str, before_s: float) -> int:
        """How many that were: none where it was attached again meanwhile."""
        is_it = _TABLE.c.sha256 == sha256
        with self._database.begin() as connection:
            removed = connection.execute(delete(_TABLE).where(is_it, _is_older(before_s)))
            connection.execute(delete(_USES).where(_USES.c.sha256 == sha256, ~exists().where(is_it)))
        return removed.rowcount


def _is_older(before_s: float) -> ColumnElement[bool]:
    return ~exists().where(_USES.c.sha256 == _TABLE.c.sha256, _USES.c.attached_at_s >= before_s)
