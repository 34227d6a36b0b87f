"""Remote instances and routes in the state database, one row each. A remote's key lies in a table of its own, which
nothing but `key` reads."""

from __future__ import annotations

import logging
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError
from sqlalchemy import Column, Integer, MetaData, String, Table, Text, delete, func, insert, select, update

from engine.remote.spec import RemoteSpec
from engine.scheduling.router import Route
from engine.state.database import Database

logger = logging.getLogger(__name__)

T = TypeVar("T")

_METADATA = MetaData()
_NAME_LENGTH = 255
_REMOTES, _ROUTES = (
    Table(
        name,
        _METADATA,
        Column("name", String(_NAME_LENGTH), primary_key=True),
        Column("position", Integer, nullable=False),
        Column("payload", Text, nullable=False),
    )
    for name in ("remote_instances", "routes")
)
_KEYS = Table(
    "remote_keys",
    _METADATA,
    Column("name", String(_NAME_LENGTH), primary_key=True),
    Column("secret", Text, nullable=False),
)
_REMOTE, _ROUTE = TypeAdapter(RemoteSpec), TypeAdapter(Route)


class ServingStore:
    """Every method may be called from any thread, is one transaction, and raises StoreError when the database cannot
    do it. A row that another version of the console wrote and this one cannot read counts as none."""

    def __init__(self, database: Database) -> None:
        self._database = database
        database.create_tables(_METADATA)

    def remotes(self) -> tuple[RemoteSpec, ...]:
        """The remote instances, in the order they were added."""
        return self._read(_REMOTES, _REMOTE)

    def keep_remote(self, spec: RemoteSpec, key: str | None) -> None:
        """Keep it and its key in place of what was there of them; None for no key."""
        self._keep(_REMOTES, spec.name, _REMOTE.dump_json(spec).decode(), key)

    def forget_remote(self, name: str) -> None:
        """Delete it, and its key; nothing happens where there is none."""
        with self._database.begin() as connection:
            for table in (_REMOTES, _KEYS):
                connection.execute(delete(table).where(table.c.name == name))

    def key(self, name: str) -> str | None:
        """The stored key of a remote instance, for its connections alone."""
        with self._database.begin() as connection:
            return connection.execute(select(_KEYS.c.secret).where(_KEYS.c.name == name)).scalar_one_or_none()

    def routes(self) -> tuple[Route, ...]:
        """The routes, in the order they were made."""
        return self._read(_ROUTES, _ROUTE)

    def keep_route(self, route: Route) -> None:
        """Keep it in place of the one of that name."""
        self._keep(_ROUTES, route.name, _ROUTE.dump_json(route).decode(), None)

    def forget_route(self, name: str) -> None:
        """Delete it; nothing happens where there is none."""
        with self._database.begin() as connection:
            connection.execute(delete(_ROUTES).where(_ROUTES.c.name == name))

    def _keep(self, table: Table, name: str, payload: str, key: str | None) -> None:
        with self._database.begin() as connection:
            changed = connection.execute(update(table).where(table.c.name == name).values(payload=payload))
            if changed.rowcount == 0:
                last = connection.execute(select(func.max(table.c.position))).scalar_one_or_none()
                position = 0 if last is None else last + 1
                connection.execute(insert(table).values(name=name, position=position, payload=payload))
            if table is _REMOTES:
                connection.execute(delete(_KEYS).where(_KEYS.c.name == name))
            if key is not None:
                connection.execute(insert(_KEYS).values(name=name, secret=key))

    def _read(self, table: Table, adapter: TypeAdapter[T]) -> tuple[T, ...]:
        with self._database.begin() as connection:
            rows = connection.execute(select(table.c.name, table.c.payload).order_by(table.c.position)).all()
        read: list[T] = []
        for name, payload in rows:
            try:
                read.append(adapter.validate_json(payload))
            except ValidationError as error:
                logger.warning("%s in %s cannot be read, and counts as none: %s", name, table.name, error)
        return tuple(read)
