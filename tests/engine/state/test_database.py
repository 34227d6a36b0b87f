from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Column, Integer, MetaData, Table, insert, select

from engine.errors import StoreError
from engine.state.database import BUSY_TIMEOUT_MS, FILE_NAME, Database, open_database, sqlite_url

_METADATA = MetaData()
_NUMBERS = Table("numbers", _METADATA, Column("number", Integer, primary_key=True))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "home" / FILE_NAME


@pytest.fixture(params=["file", "memory"])
def database(request: pytest.FixtureRequest, path: Path) -> Iterator[Database]:
    with open_database(sqlite_url(path) if request.param == "file" else "sqlite://") as database:
        database.create_tables(_METADATA)
        yield database


def _numbers(database: Database) -> list[int]:
    with database.begin() as connection:
        return sorted(connection.execute(select(_NUMBERS.c.number)).scalars())


def _insert(database: Database, number: int) -> None:
    with database.begin() as connection:
        connection.execute(insert(_NUMBERS).values(number=number))


def _insert_and_fail(database: Database) -> None:
    with database.begin() as connection:
        connection.execute(insert(_NUMBERS).values(number=2))
        raise RuntimeError("midway")


def test_sqlite_is_set_up_for_many_threads(path: Path) -> None:
    with open_database(sqlite_url(path)) as database, database.begin() as connection:
        pragmas = [
            connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "busy_timeout", "foreign_keys")
        ]
    assert pragmas == ["wal", BUSY_TIMEOUT_MS, 1]


def test_path_may_have_any_characters(tmp_path: Path) -> None:
    path = tmp_path / "a b#?%20&.sqlite"
    open_database(sqlite_url(path)).close()
    assert path.is_file()


def test_block_is_one_transaction(database: Database) -> None:
    _insert(database, 1)
    with pytest.raises(RuntimeError, match="midway"):
        _insert_and_fail(database)
    assert _numbers(database) == [1]


def test_broken_constraint_is_a_store_error(database: Database) -> None:
    _insert(database, 1)
    with pytest.raises(StoreError, match="UNIQUE constraint failed"):
        _insert(database, 1)
    assert _numbers(database) == [1]


def test_threads_share_the_database(database: Database) -> None:
    threads = [threading.Thread(target=_insert, args=(database, number)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert _numbers(database) == list(range(16))


def test_tables_outlive_the_process(path: Path) -> None:
    for _ in range(2):
        with open_database(sqlite_url(path)) as database:
            database.create_tables(_METADATA)
            _insert(database, len(_numbers(database)))
    with open_database(sqlite_url(path)) as database:
        assert _numbers(database) == [0, 1]


def test_damaged_file_is_explained_and_kept(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"garbage" * 1_000)
    with pytest.raises(StoreError, match=r"file is not a database.; move the file away") as refused:
        open_database(sqlite_url(path))
    assert str(path) in str(refused.value)
    assert path.read_bytes() == b"garbage" * 1_000


def test_file_damaged_inside_is_explained(path: Path) -> None:
    with open_database(sqlite_url(path)) as database:
        database.create_tables(_METADATA)
        _insert(database, 1)
    content = bytearray(path.read_bytes())
    content[100:] = b"\xff" * (len(content) - 100)
    path.write_bytes(content)
    with pytest.raises(StoreError, match=r"malformed.*move the file away"), open_database(sqlite_url(path)) as opened:
        _numbers(opened)


def test_folder_in_place_of_the_file_is_explained(path: Path) -> None:
    path.mkdir(parents=True)
    with pytest.raises(StoreError, match=r"unable to open database file.*CONSOLE_HOME"):
        open_database(sqlite_url(path))


def test_folder_that_cannot_be_made_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="make the folder writable"):
        open_database(sqlite_url(tmp_path / "file" / "state.sqlite"))


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write to read-only files")
def test_read_only_file_is_explained(path: Path) -> None:
    open_database(sqlite_url(path)).close()
    path.chmod(0o400)
    with pytest.raises(StoreError, match="make the file and its folder writable"):
        open_database(sqlite_url(path))


def test_file_locked_by_another_is_explained(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_database(sqlite_url(path)).close()
    monkeypatch.setattr("engine.state.database._PRAGMAS", ("PRAGMA busy_timeout = 10",))
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError, match=r"locked.*another process is writing"):
        open_database(sqlite_url(path))
    other.close()


def test_full_disk_is_explained_and_loses_nothing(path: Path) -> None:
    with open_database(sqlite_url(path)) as database:
        database.create_tables(_METADATA)
        with database.begin() as connection:
            num_pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
            connection.exec_driver_sql(f"PRAGMA max_page_count = {num_pages}")
        _insert(database, 1)
        with pytest.raises(StoreError, match=r"disk is full.*free space"), database.begin() as connection:
            connection.execute(insert(_NUMBERS), [{"number": number} for number in range(2, 5_000)])
        assert _numbers(database) == [1]


@pytest.mark.parametrize("url", ["not a url", "nonsense://host/db"])
def test_url_that_cannot_be_used_is_explained(url: str) -> None:
    with pytest.raises(StoreError, match="DATABASE_URL cannot be used"):
        open_database(url)
