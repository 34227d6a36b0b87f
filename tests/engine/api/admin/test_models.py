"""Models administered purely by HTTP: over the fake, and once over a real tiny model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette

from engine.config import Settings
from engine.console import Console, open_console
from engine.instance import InstanceState
from tests.engine.api.servers import build_app, call
from tests.fakes import FakeBackend, fake_spec, wait_until


def _states(app: Starlette, name: str) -> list[tuple[int, str, str]]:
    response = call(app, "GET", f"/admin/models/{name}")
    readings = response.json()["data"] if response.status_code == 200 else []
    return [(reading["version"], reading["role"], reading["state"]) for reading in readings]


def _post(app: Starlette, path: str, body: dict[str, Any] | None = None) -> tuple[int, Any]:
    response = call(app, "POST", f"/admin/models{path}", **({} if body is None else {"json": body}))
    return response.status_code, response.json() if response.content else None


@pytest.fixture
def real_app(tmp_path: Path) -> Iterator[Starlette]:
    console = open_console(Settings(home=tmp_path, model="none", device="cpu", kv_cache_gib=0.1))
    yield build_app(console)
    console.close()


def test_a_models_life_purely_by_http(real_app: Starlette, tiny_folder: Path) -> None:
    spec = {"source": str(tiny_folder), "device": "cpu", "dtype": "float32", "context_length": 512, "max_running": 3}
    chat = {"model": "tiny", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 3}
    assert _post(real_app, "", spec | {"name": "tiny"}) == (202, {"name": "tiny"})
    wait_until(lambda: _states(real_app, "tiny") == [(1, "serving", "ready")], 60)
    (reading,) = call(real_app, "GET", "/admin/models").json()["data"]
    assert reading["spec"]["context_length"] == 512
    assert reading["model"]["weights_bytes"] > 0
    assert reading["stats"]["max_running"] == 3
    assert call(real_app, "POST", "/v1/chat/completions", json=chat).status_code == 200

    assert _post(real_app, "/tiny/swap", spec | {"max_running": 5}) == (202, {"name": "tiny"})
    wait_until(lambda: _states(real_app, "tiny") == [(2, "serving", "ready")], 60)
    assert call(real_app, "GET", "/admin/models/tiny").json()["data"][0]["stats"]["max_running"] == 5
    assert call(real_app, "POST", "/v1/chat/completions", json=chat).status_code == 200

    assert _post(real_app, "/tiny/unload", {"drain_s": 5}) == (202, {"name": "tiny"})
    wait_until(lambda: call(real_app, "GET", "/admin/models/tiny").status_code == 404)
    assert call(real_app, "POST", "/v1/chat/completions", json=chat).status_code == 404


def test_progress_of_loading_is_read_again_and_again(app: Starlette, console: Console, backend: FakeBackend) -> None:
    backend.load_gate.clear()
    spec = fake_spec("org/other")
    assert _post(app, "", {"source": spec.source, "name": "org/other", "is_pinned": True}) == (
        202,
        {"name": "org/other"},
    )
    wait_until(lambda: _states(app, "org/other") == [(1, "serving", "loading")])
    wait_until(lambda: call(app, "GET", "/admin/models/org/other").json()["data"][0]["progress"] == 0.5)
    assert call(app, "GET", "/admin/models/org/other").json()["data"][0]["is_pinned"] is True
    backend.load_gate.set()
    wait_until(lambda: _states(app, "org/other") == [(1, "serving", "ready")])


def test_a_load_that_the_engine_refuses(app: Starlette) -> None:
    status, body = _post(app, "", {"source": fake_spec().source, "name": "m"})
    assert (status, body["error"]["code"]) == (409, "model_exists")
    status, body = _post(app, "", {"source": "/nowhere"})
    assert (status, body["error"]["code"]) == (400, "invalid_weights")


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "source"),
        ({"source": ""}, "source"),
        ({"source": "x", "device": "tpu"}, "device"),
        ({"source": "x", "max_running": 0}, "max_running"),
        ({"source": "x", "colour": "red"}, "colour"),
        ({"source": "x", "quantization": {"scheme": "int3"}}, "quantization.scheme"),
        ({"source": "x", "quantization": {"scheme": "int8-dynamic", "bits": 3}}, "quantization.bits"),
    ],
)
def test_a_load_whose_body_is_wrong_names_the_field(app: Starlette, body: dict[str, Any], param: str) -> None:
    status, answer = _post(app, "", body)
    assert (status, answer["error"]["param"]) == (400, param)


def test_a_swap_under_way_can_be_seen_and_given_up(app: Starlette, console: Console, backend: FakeBackend) -> None:
    backend.load_gate.clear()
    spec = {"source": fake_spec().source}
    assert _post(app, "/m/swap", spec)[0] == 202
    wait_until(lambda: _states(app, "m") == [(1, "serving", "ready"), (2, "next", "loading")])
    status, body = _post(app, "/m/swap", spec)
    assert (status, body["error"]["code"]) == (409, "model_exists")
    assert _post(app, "/m/cancel-swap") == (200, {"has_ended": True})
    backend.load_gate.set()
    wait_until(lambda: _states(app, "m") == [(1, "serving", "ready")])
    assert _post(app, "/m/cancel-swap") == (200, {"has_ended": False})


def test_draining_waits_for_requests_and_unloading_hastens_it(
    app: Starlette, console: Console, backend: FakeBackend
) -> None:
    from engine.inference.request import Message, Request

    backend.gate.clear()
    stream = console.engine.stream(Request("m", (Message("user", "Hi"),)))
    assert _post(app, "/m/drain") == (202, {"name": "m"})
    wait_until(lambda: _states(app, "m") == [(1, "serving", "draining")])
    assert stream.finished is None
    assert _post(app, "/m/unload", {"drain_s": 0}) == (202, {"name": "m"})
    wait_until(lambda: console.engine.instances() == ())
    assert stream.finished is not None


def test_unloading_needs_no_body(app: Starlette, console: Console) -> None:
    assert _post(app, "/m/unload")[0] == 202
    wait_until(lambda: console.engine.instances() == ())


def test_pinning(app: Starlette, console: Console) -> None:
    assert _post(app, "/m/pin")[0] == 204
    assert console.engine.instances()[0].is_pinned
    assert _post(app, "/m/unpin")[0] == 204
    assert not console.engine.instances()[0].is_pinned
    assert console.engine.instances()[0].state is InstanceState.READY


@pytest.mark.parametrize("action", ["unload", "drain", "cancel-swap", "pin", "unpin", "swap"])
def test_a_model_that_is_not_there(app: Starlette, action: str) -> None:
    body = {"source": fake_spec().source} if action == "swap" else None
    status, answer = _post(app, f"/org/none/{action}", body)
    assert (status, answer["error"]["code"]) == (404, "model_not_found")
    assert "'org/none'; loaded: m" in answer["error"]["message"]


@pytest.mark.parametrize("drain_s", [-1, 86_401, "soon"])
def test_how_long_to_drain_has_bounds(app: Starlette, drain_s: object) -> None:
    status, answer = _post(app, "/m/unload", {"drain_s": drain_s})
    assert (status, answer["error"]["param"]) == (400, "drain_s")
