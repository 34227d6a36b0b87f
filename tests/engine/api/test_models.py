from __future__ import annotations

from starlette.applications import Starlette

from engine.console import Console
from tests.engine.api.servers import call, load_ready
from tests.fakes import FakeBackend, fake_spec, wait_until


def test_ready_models_are_listed(app: Starlette, console: Console) -> None:
    load_ready(console, "org/other")
    body = call(app, "GET", "/v1/models").json()
    assert body["object"] == "list"
    assert [(card["id"], card["object"]) for card in body["data"]] == [
        ("m", "model"),
        ("org/other", "model"),
        ("auto", "model"),
    ]
    assert all(card["created"] > 1_600_000_000 for card in body["data"])


def test_one_model_also_with_a_slash_in_its_name(app: Starlette, console: Console) -> None:
    load_ready(console, "org/other")
    assert call(app, "GET", "/v1/models/m").json()["id"] == "m"
    assert call(app, "GET", "/v1/models/org/other").json()["id"] == "org/other"


def test_a_model_that_is_not_there(app: Starlette) -> None:
    response = call(app, "GET", "/v1/models/n")
    assert response.status_code == 404
    assert response.json()["error"]["code"] == "model_not_found"


def test_what_is_not_ready_is_not_listed(app: Starlette, console: Console, backend: FakeBackend) -> None:
    backend.load_gate.clear()
    console.engine.load(fake_spec("later"))
    wait_until(lambda: backend.num_loads == 2)
    assert [card["id"] for card in call(app, "GET", "/v1/models").json()["data"]] == ["m"]
    assert call(app, "GET", "/v1/models/later").status_code == 404
