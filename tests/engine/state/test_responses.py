from __future__ import annotations

from typing import Any

import pytest

from engine.errors import StoreError
from engine.state.database import Database
from engine.state.responses import ResponseStore, StoredResponse
from tests.fakes import FakeClock


def _stored(identifier: str, text: str = "", **fields: Any) -> StoredResponse:
    return StoredResponse({"id": identifier, "text": text, **fields}, ({"id": "msg_1", "type": "message"},))


def _kept(store: ResponseStore, *ids: str) -> list[str]:
    return [identifier for identifier in ids if store.get(identifier, None) is not None]


def test_what_was_added_is_found(database: Database) -> None:
    store = ResponseStore(database)
    store.add(_stored("resp_1", "Grüße 😀"), None)
    assert store.get("resp_1", None) == _stored("resp_1", "Grüße 😀")
    assert store.get("resp_2", None) is None
    assert ResponseStore(database).get("resp_1", None) is not None


def test_a_response_is_found_by_its_own_key_alone(database: Database) -> None:
    store = ResponseStore(database)
    store.add(_stored("resp_1"), "key-1")
    store.add(_stored("resp_2"), None)
    assert store.get("resp_1", "key-1") is not None
    assert store.get("resp_1", "key-2") is None
    assert store.get("resp_1", None) is None
    assert store.get("resp_2", "key-1") is None


def test_a_new_version_takes_the_place_of_the_old(database: Database) -> None:
    store = ResponseStore(database)
    store.add(_stored("resp_1", status="queued"), "key-1")
    store.replace(_stored("resp_1", status="completed"))
    found = store.get("resp_1", "key-1")
    assert found is not None
    assert found.response["status"] == "completed"


def test_a_deleted_response_stays_deleted(database: Database) -> None:
    store = ResponseStore(database)
    store.add(_stored("resp_1"), None)
    store.delete("resp_1")
    store.replace(_stored("resp_1"))
    assert store.get("resp_1", None) is None
    store.delete("resp_1")


def test_the_oldest_go_beyond_the_bound_of_rows(database: Database) -> None:
    clock = FakeClock()
    store = ResponseStore(database, clock.wall, max_responses=2)
    for identifier in ("c", "a", "b"):
        clock.advance(1)
        store.add(_stored(identifier), None)
    assert _kept(store, "a", "b", "c") == ["a", "b"]


def test_the_oldest_go_beyond_the_bound_of_bytes(database: Database) -> None:
    clock = FakeClock()
    store = ResponseStore(database, clock.wall, max_bytes=2_500)
    for identifier in ("c", "a", "b"):
        clock.advance(1)
        store.add(_stored(identifier, "x" * 1_000), None)
    assert _kept(store, "a", "b", "c") == ["a", "b"]
    store.replace(_stored("a", "x" * 2_000))
    clock.advance(1)
    store.add(_stored("d"), None)
    assert _kept(store, "a", "b", "c", "d") == ["b", "d"]


def test_a_key_that_floods_drives_out_its_own_alone(database: Database) -> None:
    clock = FakeClock()
    store = ResponseStore(database, clock.wall, max_responses=4)
    store.add(_stored("theirs"), "key-2")
    store.add(_stored("anonymous"), None)
    for number in range(9):
        clock.advance(1)
        store.add(_stored(f"flood-{number}"), "key-1")
    assert store.get("theirs", "key-2") is not None
    assert store.get("anonymous", None) is not None
    assert [number for number in range(9) if store.get(f"flood-{number}", "key-1")] == [7, 8]


def test_a_key_that_floods_with_bytes_drives_out_its_own_alone(database: Database) -> None:
    clock = FakeClock()
    store = ResponseStore(database, clock.wall, max_bytes=6_000)
    store.add(_stored("theirs", "x" * 1_000), "key-2")
    for number in range(9):
        clock.advance(1)
        store.add(_stored(f"flood-{number}", "x" * 1_000), "key-1")
    assert store.get("theirs", "key-2") is not None
    assert [number for number in range(9) if store.get(f"flood-{number}", "key-1")] == [5, 6, 7, 8]
    clock.advance(1)
    store.add(_stored("more", "x" * 3_000), "key-2")
    kept = [number for number in range(9) if store.get(f"flood-{number}", "key-1")]
    assert store.get("more", "key-2") is not None
    assert store.get("theirs", "key-2") is None
    assert kept in ([6, 7, 8], [7, 8])


def test_two_of_one_id_are_an_error(database: Database) -> None:
    store = ResponseStore(database)
    store.add(_stored("resp_1"), None)
    with pytest.raises(StoreError):
        store.add(_stored("resp_1"), None)
