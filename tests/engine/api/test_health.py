from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.config import Settings
from engine.console import Console
from engine.errors import WeightsError
from engine.instance import InstanceState
from tests.engine.api.servers import await_ready, build_app, call, fake_console
from tests.fakes import FakeBackend, fake_spec, wait_until


@pytest.fixture
def empty_console(tmp_path: Path, backend: FakeBackend) -> Iterator[Console]:
    with fake_console(Settings(home=tmp_path), backend) as one:
        yield one


def test_alive_before_anything_is_open() -> None:
    app = build_app(None)
    assert call(app, "GET", "/healthz").json() == {"status": "ok"}
    assert call(app, "GET", "/readyz").status_code == 503


def test_ready_only_once_a_model_is(empty_console: Console, backend: FakeBackend) -> None:
    app = build_app(empty_console)
    assert call(app, "GET", "/readyz").status_code == 503
    backend.load_gate.clear()
    empty_console.engine.load(fake_spec())
    wait_until(lambda: empty_console.engine.instances()[0].state is InstanceState.LOADING)
    response = call(app, "GET", "/readyz")
    assert response.status_code == 503
    assert response.json() == {"ready": False, "instances": {"m": {"state": "loading", "reason": None}}}
    backend.load_gate.set()
    await_ready(empty_console)
    response = call(app, "GET", "/readyz")
    assert (response.status_code, response.json()["ready"]) == (200, True)


def test_the_reason_of_a_failure_is_there(empty_console: Console, backend: FakeBackend) -> None:
    backend.load_error = WeightsError("the file is cut short")
    empty_console.engine.load(fake_spec())
    wait_until(lambda: empty_console.engine.instances()[0].state is InstanceState.FAILED)
    response = call(build_app(empty_console), "GET", "/readyz")
    assert response.status_code == 503
    assert response.json()["instances"]["m"] == {"state": "failed", "reason": "the file is cut short"}
