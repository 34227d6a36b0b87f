from __future__ import annotations

from starlette.applications import Starlette

from engine.console import Console
from engine.inference.request import FinishReason, Message, Request
from engine.instance import InstanceState
from engine.remote import RemoteSpec
from tests.engine.api.servers import call
from tests.engine.remote.openai_server import hang, openai_server
from tests.fakes import FakeBackend, wait_until


def test_a_request_is_listed_and_cancelled(app: Starlette, console: Console, backend: FakeBackend) -> None:
    backend.gate.clear()
    stream = console.engine.stream(Request("m", (Message("user", "a secret question"),), source="api"))
    (found,) = call(app, "GET", "/admin/requests").json()["data"]
    assert (found["request_id"], found["model"], found["source"]) == (stream.request_id, "m", "api")
    assert "secret" not in str(found)
    assert call(app, "DELETE", f"/admin/requests/{stream.request_id}").status_code == 204
    backend.gate.set()
    wait_until(lambda: stream.finished is not None)
    assert stream.finished is not None
    assert stream.finished.reason is FinishReason.CANCELLED


def test_one_that_is_not_here(app: Starlette) -> None:
    response = call(app, "DELETE", "/admin/requests/req-0")
    assert response.status_code == 404
    assert response.json()["error"]["code"] == "request_not_found"
    assert call(app, "GET", "/admin/requests").json() == {"object": "list", "data": []}


def test_a_request_at_a_remote_instance_is_listed_and_cancelled(app: Starlette, console: Console) -> None:
    with openai_server() as server:
        server.answer = hang
        console.gateway.remotes.add(RemoteSpec("far", server.url, "there", check_every_s=0.1))
        wait_until(lambda: console.gateway.remotes.find("far").info().state is InstanceState.READY)
        stream = console.gateway.stream(Request("far", (Message("user", "hi"),), source="api"))
        (found,) = call(app, "GET", "/admin/requests").json()["data"]
        assert (found["request_id"], found["model"]) == (stream.request_id, "far")
        assert call(app, "DELETE", f"/admin/requests/{stream.request_id}").status_code == 204
        wait_until(lambda: console.gateway.requests() == ())
