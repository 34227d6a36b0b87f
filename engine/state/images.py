"""The pictures of conversations in the state database, each once, by their digests."""

from __future__ import annotations

from sqlalchemy import Column, LargeBinary, MetaData, String, Table, exists, insert, literal, select

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


class ImageStore:
    """Pictures by digest. They stay when a conversation is deleted, since that can be undone. Any thread may call;
    every method raises StoreError when the database cannot do it."""

    def __init__(self, database: Database) -> None:
        self._database = database
        database.create_tables(_METADATA)

    def keep(self, image: ImagePart, name: str) -> KeptImage:
        """Keep the picture; one that is here already is not written again."""
        is_here = exists().where(_TABLE.c.sha256 == image.sha256)
        row = select(literal(image.sha256), literal(image.data, LargeBinary)).where(~is_here)
        with self._database.begin() as connection:
            connection.execute(insert(_TABLE).from_select(["sha256", "data"], row))
        return KeptImage(image.sha256, image.media_type, name)

    def read(self, kept: KeptImage) -> bytes | None:
        """The bytes of its file; None where they are not here, as in a conversation from elsewhere."""
        with self._database.begin() as connection:
            data = connection.execute(select(_TABLE.c.data).where(_TABLE.c.sha256 == kept.sha256)).scalar_one_or_none()
        return None if data is None else bytes(data)
