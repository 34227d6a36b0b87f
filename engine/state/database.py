"""The state database: SQLite in WAL mode in the console's home, or PostgreSQL, by one SQLAlchemy URL."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from sqlalchemy import URL, Connection, Engine, MetaData, QueuePool, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from engine.errors import StoreError

FILE_NAME = "state.sqlite"
BUSY_TIMEOUT_MS = 5_000

_PRAGMAS = (
    f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}",
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = NORMAL",
    "PRAGMA foreign_keys = ON",
)
_REMEDIES = (
    ("disk is full", "free space there and try again"),
    ("disk I/O error", "check that disk and the space left on it"),
    ("not a database", "move the file away (it was left as it is) and start again"),
    ("malformed", "move the file away (it was left as it is) and start again"),
    ("locked", "another process is writing to it: stop that one or try again"),
    ("readonly", "make the file and its folder writable, or set CONSOLE_HOME to another folder"),
)


class Database:
    """A pool of connections. Its errors are StoreErrors that name the database and the remedy."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        """A transaction: committed at the end of the block, rolled back when the block raises."""
        try:
            with self._engine.begin() as connection:
                yield connection
        except SQLAlchemyError as error:
            raise StoreError(_explain(self._engine.url, error)) from error

    def create_tables(self, metadata: MetaData) -> None:
        """Make the tables of `metadata` that are missing."""
        with self.begin() as connection:
            metadata.create_all(connection)

    def close(self) -> None:
        """Close every pooled connection."""
        self._engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def sqlite_url(path: Path) -> str:
    """The URL of the SQLite file at `path`, whatever characters are in it."""
    return URL.create("sqlite", database=str(path)).render_as_string()


def open_database(url: str) -> Database:
    """Connect to `url` and prove that it can be written.

    A SQLite file is made with its folder where it is missing. StoreError when the URL cannot be read, its
    driver is not installed, or the database is damaged, read-only, locked or out of reach.
    """
    try:
        parsed = make_url(url)
        engine = create_engine(parsed, **_engine_options(parsed))
    except (ArgumentError, NoSuchModuleError, ModuleNotFoundError) as error:
        raise StoreError(f"DATABASE_URL cannot be used: {error}; install its driver or correct it") from error
    database = Database(engine)
    try:
        if _is_sqlite(parsed):
            event.listen(engine, "connect", _set_pragmas)
            _make_folder(parsed)
        with database.begin() as connection:
            connection.exec_driver_sql("BEGIN IMMEDIATE" if _is_sqlite(parsed) else "SELECT 1")
    except StoreError:
        database.close()
        raise
    return database


def _engine_options(url: URL) -> dict[str, Any]:
    if not _is_sqlite(url) or _has_file(url):
        return {"pool_pre_ping": not _is_sqlite(url)}
    # A database in memory lives in its one connection, which threads therefore take turns with.
    one = {"poolclass": QueuePool, "pool_size": 1, "max_overflow": 0}
    return {**one, "connect_args": {"check_same_thread": False}}


def _is_sqlite(url: URL) -> bool:
    return url.get_backend_name() == "sqlite"


def _has_file(url: URL) -> bool:
    return url.database not in (None, "", ":memory:")


def _make_folder(url: URL) -> None:
    if not _has_file(url):
        return
    try:
        Path(str(url.database)).parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(_explain(url, error)) from error


def _set_pragmas(connection: Any, _record: object) -> None:
    cursor = connection.cursor()
    try:
        for pragma in _PRAGMAS:
            cursor.execute(pragma)
    finally:
        cursor.close()


def _explain(url: URL, error: Exception) -> str:
    """One sentence: where, why, what to do. A password in the URL stays hidden."""
    where = url.database if _is_sqlite(url) and _has_file(url) else url.render_as_string(hide_password=True)
    reason = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
    fitting = (remedy for sign, remedy in _REMEDIES if sign in reason)
    in_folder = "make the folder writable, or set CONSOLE_HOME to another one"
    on_server = "check that it is up and that the console may write to it"
    remedy = next(fitting, in_folder if _is_sqlite(url) else on_server)
    return f"The console's state cannot be kept in {where} ({reason}); {remedy}."
