from __future__ import annotations

import pytest

from engine.errors import InstanceNotFoundError, InvalidRequestError, StoreError
from engine.gateway import Routes
from engine.scheduling.router import Route, Target
from engine.state.database import open_database
from engine.state.serving import ServingStore

CHAT = Route("chat", (Target("one", 90), Target("two", 10)), ("three",), is_weighted=True, is_sticky=False)


def test_routes_outlive_the_table_and_are_replaced_by_name() -> None:
    with open_database("sqlite://") as database:
        routes = Routes(ServingStore(database))
        routes.save(CHAT)
        routes.save(Route("other", (Target("one"),)))
        routes.save(Route("chat", (Target("two"),)))
        again = Routes(ServingStore(database))
        assert again.all() == routes.all() == (Route("chat", (Target("two"),)), Route("other", (Target("one"),)))
        again.delete("chat")
        assert (again.find("chat"), Routes(ServingStore(database)).find("chat")) == (None, None)


def test_one_that_makes_no_sense_leaves_the_one_before() -> None:
    with open_database("sqlite://") as database:
        routes = Routes(ServingStore(database))
        routes.save(CHAT)
        with pytest.raises(InvalidRequestError):
            routes.save(Route("chat", ()))
        assert routes.find("chat") == CHAT
        with pytest.raises(InstanceNotFoundError, match="no route named 'nowhere'"):
            routes.delete("nowhere")


def test_what_cannot_be_kept_is_not_in_force() -> None:
    with open_database("sqlite://") as database:
        routes = Routes(ServingStore(database))
        with database.begin() as connection:
            connection.exec_driver_sql("DROP TABLE routes")
        with pytest.raises(StoreError):
            routes.save(CHAT)
        assert routes.all() == ()
