from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import event
from sqlalchemy.engine import Engine

from engine.errors import StoreError
from engine.state.conversation import KeptImage, add_turn
from engine.state.conversations import ConversationStore, ConversationSummary
from engine.state.database import Database, open_database, sqlite_url
from tests.engine.state.builders import make_conversation


@pytest.fixture
def store(database: Database) -> ConversationStore:
    return ConversationStore(database, clock=lambda: 100.0)


def test_saved_conversation_comes_back_whole(store: ConversationStore) -> None:
    talk = make_conversation()
    store.save(talk)
    assert store.get(talk.id) == talk


def test_later_version_takes_the_place(store: ConversationStore) -> None:
    talk = make_conversation()
    store.save(talk)
    longer = add_turn(talk, "Of Spain?", now_s=9.0)
    store.save(longer)
    assert store.get(talk.id) == longer
    assert [summary.updated_at_s for summary in store.list()] == [9.0]


def test_conversations_outlive_the_store(tmp_path: Path) -> None:
    talk = make_conversation()
    with open_database(sqlite_url(tmp_path / "state.sqlite")) as database:
        ConversationStore(database).save(talk)
    with open_database(sqlite_url(tmp_path / "state.sqlite")) as database:
        assert ConversationStore(database).get(talk.id) == talk


def test_unknown_id_has_none(store: ConversationStore) -> None:
    assert store.get("nobody") is None
    assert not store.delete("nobody")
    assert not store.restore("nobody")


def test_list_is_newest_first_and_limited(store: ConversationStore) -> None:
    for title, updated_at_s in (("old", 10.0), ("new", 30.0), ("middle", 20.0)):
        store.save(make_conversation(title, updated_at_s))
    assert [summary.title for summary in store.list()] == ["new", "middle", "old"]
    assert [summary.title for summary in store.list(limit=2)] == ["new", "middle"]


def test_list_loads_no_payload(store: ConversationStore) -> None:
    talk = make_conversation()
    store.save(talk)
    statements: list[str] = []

    def note(*arguments: object) -> None:
        statements.append(str(arguments[2]))

    event.listen(Engine, "before_cursor_execute", note)
    listed = store.list()
    event.remove(Engine, "before_cursor_execute", note)
    assert listed == (ConversationSummary(talk.id, talk.title, talk.created_at_s, talk.updated_at_s),)
    assert statements
    assert not any("payload" in statement for statement in statements)


def test_deleted_conversation_is_hidden_until_restored(store: ConversationStore) -> None:
    talk = make_conversation()
    store.save(talk)
    assert store.delete(talk.id)
    assert (store.get(talk.id), store.list()) == (None, ())
    assert not store.delete(talk.id)
    assert store.restore(talk.id)
    assert store.get(talk.id) == talk
    assert not store.restore(talk.id)


def test_saving_does_not_bring_a_deleted_conversation_back(store: ConversationStore) -> None:
    talk = make_conversation()
    store.save(talk)
    store.delete(talk.id)
    longer = add_turn(talk, "Still there?", now_s=9.0)
    store.save(longer)
    assert store.get(talk.id) is None
    store.restore(talk.id)
    assert store.get(talk.id) == longer


def test_threads_save_at_once(store: ConversationStore) -> None:
    talks = [make_conversation(f"talk {index}") for index in range(12)]
    threads = [threading.Thread(target=store.save, args=(talk,)) for talk in [*talks, *talks]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {summary.id for summary in store.list()} == {talk.id for talk in talks}


def test_conversation_that_cannot_be_written_leaves_the_last_version(store: ConversationStore) -> None:
    talk = make_conversation()
    store.save(talk)
    with pytest.raises(StoreError, match="broken characters"):
        store.save(replace(talk, title="\ud800"))
    assert store.get(talk.id) == talk


def test_payload_damaged_in_the_database_is_explained(store: ConversationStore, database: Database) -> None:
    talk = make_conversation()
    store.save(talk)
    with database.begin() as connection:
        connection.exec_driver_sql("UPDATE conversations SET payload = '{}'")
    with pytest.raises(StoreError, match="not a conversation that can be read: id"):
        store.get(talk.id)
    assert len(store.list()) == 1


def test_what_was_deleted_long_ago_is_purged(database: Database) -> None:
    talks = [make_conversation(f"talk {index}") for index in range(3)]
    for talk, deleted_at_s in zip(talks, (None, 10.0, 90.0), strict=True):
        store = ConversationStore(database, clock=lambda at_s=deleted_at_s: at_s)  # type: ignore[misc]
        store.save(talk)
        if deleted_at_s is not None:
            store.delete(talk.id)
    assert store.purge(50.0) == 1
    assert store.purge(50.0) == 0
    assert not store.restore(talks[1].id)
    assert store.restore(talks[2].id)
    assert {summary.id for summary in store.list()} == {talks[0].id, talks[2].id}


def test_the_digests_of_all_pictures_those_of_deleted_ones_too(store: ConversationStore) -> None:
    images = [KeptImage(f"{index}" * 64, "image/png", "x.png") for index in range(3)]
    for index in range(2):
        talk = add_turn(make_conversation(), "What is this?", now_s=9.0, images=(images[index],))
        store.save(add_turn(talk, "", now_s=10.0, images=(images[index + 1],)))
    store.delete(talk.id)
    assert store.digests() == {image.sha256 for image in images}
