from __future__ import annotations

import pytest

from engine.remote.spec import RemoteSpec
from engine.scheduling.router import Feature, Route, Target
from engine.state import Database
from engine.state.serving import ServingStore

FAR = RemoteSpec("far", "http://10.0.0.7:8000/v1", "qwen", "KEY", 4096, frozenset({Feature.TEXT, Feature.TOOLS}), 4.5)
NEAR = RemoteSpec("near", "http://10.0.0.8:8000/v1", "qwen")
CHAT = Route("chat", (Target("far", 90.0), Target("near", 10.0)), ("m",), is_weighted=True, is_sticky=False)


def test_what_is_kept_comes_back_equal_and_in_order(database: Database) -> None:
    store = ServingStore(database)
    store.keep_remote(NEAR, None)
    store.keep_remote(FAR, None)
    store.keep_route(CHAT)
    again = ServingStore(database)
    assert (again.remotes(), again.routes()) == ((NEAR, FAR), (CHAT,))


def test_a_key_is_apart_and_goes_with_its_instance(database: Database) -> None:
    store = ServingStore(database)
    store.keep_remote(FAR, "secret")
    store.keep_route(Route("far", (Target("m"),)))
    assert store.key("far") == "secret"
    assert store.key("near") is None
    store.keep_remote(FAR, None)
    assert store.key("far") is None
    store.keep_remote(FAR, "secret")
    store.forget_remote("far")
    assert (store.remotes(), store.key("far")) == ((), None)
    assert len(store.routes()) == 1


def test_a_route_is_replaced_in_its_place_and_forgotten(database: Database) -> None:
    store = ServingStore(database)
    store.keep_route(CHAT)
    store.keep_route(Route("other", (Target("m"),)))
    changed = Route("chat", (Target("m"),))
    store.keep_route(changed)
    assert [route.name for route in store.routes()] == ["chat", "other"]
    assert store.routes()[0] == changed
    store.forget_route("chat")
    store.forget_route("chat")
    assert [route.name for route in store.routes()] == ["other"]


def test_a_row_that_cannot_be_read_counts_as_none(database: Database, caplog: pytest.LogCaptureFixture) -> None:
    store = ServingStore(database)
    store.keep_remote(FAR, None)
    store.keep_remote(NEAR, None)
    with database.begin() as connection:
        connection.exec_driver_sql("UPDATE remote_instances SET payload = '{}' WHERE name = 'far'")
    assert store.remotes() == (NEAR,)
    assert "far in remote_instances cannot be read" in caplog.text
