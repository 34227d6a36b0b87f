from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr
from starlette.applications import Starlette
from starlette.testclient import TestClient

from engine.api.app import build_headless_app
from engine.config import Settings
from engine.console import Console
from engine.environment.check import CheckStatus, Finding
from engine.environment.export import to_dict, to_json
from tests.engine.api.servers import build_app, call, fake_console
from tests.engine.environment.builders import check, finding, passing, use_checks
from tests.fakes import FakeBackend, wait_until

PATH = "/v1/environment"


@pytest.fixture
def idle_console(tmp_path: Path, backend: FakeBackend) -> Iterator[Console]:
    """A console without a model."""
    with fake_console(Settings(home=tmp_path), backend) as one:
        yield one


@pytest.fixture
def idle_app(idle_console: Console) -> Starlette:
    return build_app(idle_console)


def take(console: Console) -> None:
    assert console.environment.start()
    console.environment.wait(20)


def test_before_the_first_report_there_is_none(idle_app: Starlette) -> None:
    response = call(idle_app, "GET", PATH)
    assert response.status_code == 404
    error = response.json()["error"]
    assert error["code"] == "no_report"
    assert "open the environment page" in error["message"]


def test_while_the_first_is_taken_one_is_told_to_wait(
    idle_app: Starlette, idle_console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = threading.Event()

    def hang() -> Finding:
        opened.wait(20)
        return passing()

    use_checks(monkeypatch, check("host.a", hang, 30))
    idle_console.environment.start()
    response = call(idle_app, "GET", PATH)
    assert response.status_code == 404
    assert "ask again in some seconds" in response.json()["error"]["message"]
    opened.set()
    idle_console.environment.wait(10)
    assert call(idle_app, "GET", PATH).status_code == 200


def test_why_there_is_none(idle_app: Starlette, idle_console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: object) -> object:
        raise KeyError("cores")

    monkeypatch.setattr("engine.environment.report.FAMILIES", {"host": ("Host", broken)})
    idle_console.environment.start()
    assert "KeyError: 'cores'" in call(idle_app, "GET", PATH).json()["error"]["message"]


def test_the_report_is_that_of_the_command(
    idle_app: Starlette, idle_console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_checks(monkeypatch, check("host.a"), check("gpu.b", finding(CheckStatus.WARN, "hot \x1b[31m\udc80 ä")))
    take(idle_console)
    report = idle_console.environment.latest()
    assert report is not None
    body = call(idle_app, "GET", PATH).json()
    assert body == to_dict(report)
    assert body == json.loads(to_json(report))
    assert (body["verdict"], [one["id"] for one in body["checks"]]) == ("warn", ["host.a", "gpu.b"])


def test_a_number_that_json_has_not_breaks_nothing(
    idle_app: Starlette, idle_console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = {"ratio": float("nan"), "limit": float("inf"), "count": 3}
    use_checks(monkeypatch, check("host.a", lambda: Finding(CheckStatus.PASS, "odd", None, facts)))
    take(idle_console)
    response = call(idle_app, "GET", PATH)
    assert response.status_code == 200
    assert response.json()["checks"][0]["facts"] == {"ratio": None, "limit": None, "count": 3}


def test_with_keys_it_needs_one(tmp_path: Path, backend: FakeBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    use_checks(monkeypatch, check("host.a"))
    with fake_console(Settings(home=tmp_path, api_keys=(SecretStr("key-one"),)), backend) as console:
        take(console)
        app = build_app(console)
        assert call(app, "GET", PATH).status_code == 401
        assert call(app, "GET", PATH, headers={"authorization": "Bearer wrong"}).status_code == 401
        assert call(app, "GET", PATH, headers={"authorization": "Bearer key-one"}).status_code == 200


def test_before_the_console_is_open() -> None:
    assert call(build_app(None), "GET", PATH).status_code == 503


def test_the_description_of_the_api_has_it() -> None:
    paths = call(build_app(None), "GET", "/v1/openapi.json").json()["paths"]
    assert set(paths["/environment"]) == {"get"}


def test_the_api_without_pages_takes_a_report_at_its_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_checks(monkeypatch, check("host.a"))
    settings = Settings(home=tmp_path, model="none", environment_profile="autoglm-9b")
    with TestClient(build_headless_app(settings)) as client:
        wait_until(lambda: client.get(PATH).status_code == 200, 20)
        assert client.get(PATH).json()["profile"] == "autoglm-9b"


def test_a_bad_profile_in_the_settings_leaves_the_server_up(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    settings = Settings(home=tmp_path, model="none", environment_profile="gone")
    with TestClient(build_headless_app(settings)) as client:
        assert client.get("/healthz").status_code == 200
        assert client.get(PATH).json()["error"]["code"] == "no_report"
    assert "there is no profile 'gone'" in caplog.text


def test_a_bad_profile_in_the_settings_is_a_notice(idle_console: Console) -> None:
    from engine.api.app import _take_report

    idle_console.environment._default_profile = "gone"
    _take_report(idle_console)
    (notice,) = idle_console.notices
    assert notice.startswith("The environment was not checked: there is no profile 'gone': choose ")


def test_the_server_stops_in_time_though_a_check_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened, begun = threading.Event(), threading.Event()

    def hang() -> Finding:
        begun.set()
        opened.wait(60)
        return passing()

    use_checks(monkeypatch, check("host.a", hang, 60))
    try:
        with TestClient(build_headless_app(Settings(home=tmp_path, model="none"))):
            assert begun.wait(10)
        assert not [thread for thread in threading.enumerate() if thread.name == "environment-run"]
        assert not opened.is_set()
    finally:
        opened.set()
