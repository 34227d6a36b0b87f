from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
from pydantic import SecretStr
from starlette.applications import Starlette

from engine.config import Settings
from engine.console import Console
from engine.state.api_keys import Scope
from tests.engine.api.servers import build_app, call, fake_console, load_ready, serve
from tests.fakes import FakeBackend

_KEYS = (SecretStr("key-one"), SecretStr("key-two"))
_CHAT = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
_PATHS = {Scope.INFERENCE: "/v1/models", Scope.ADMIN: "/admin/models", Scope.METRICS: "/metrics"}


@pytest.fixture
def guarded(tmp_path: Path, backend: FakeBackend) -> Iterator[Starlette]:
    with fake_console(Settings(home=tmp_path, api_keys=_KEYS), backend) as console:
        load_ready(console)
        yield build_app(console)


def _get(app: Starlette, path: str, secret: str | None = None, **headers: str) -> int:
    bearer = {} if secret is None else {"authorization": f"Bearer {secret}"}
    return call(app, "GET", path, headers=bearer | headers).status_code


@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Bearer ", "Bearer wrong", "Basic key-one", "key-one", "Bearer key-one key-two"]
)
@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/v1/models"), ("POST", "/v1/chat/completions"), ("GET", "/admin/models"), ("GET", "/metrics")],
)
def test_without_a_known_key_all_is_401(guarded: Starlette, header: str | None, method: str, path: str) -> None:
    headers = {} if header is None else {"authorization": header}
    response = call(guarded, method, path, headers=headers, json=_CHAT if method == "POST" else None)
    assert response.status_code == 401
    assert response.headers["www-authenticate"] == "Bearer"
    error = response.json()["error"]
    assert error["code"] == "invalid_api_key"
    is_sent = header is not None and header.lower().startswith("bearer ") and header.strip().lower() != "bearer"
    assert ("not known here" if is_sent else "Authorization: Bearer KEY") in error["message"]
    assert "key-one" not in response.text


@pytest.mark.parametrize("header", ["Bearer key-one", "bearer key-two", "Bearer  key-one "])
def test_with_a_key(guarded: Starlette, header: str) -> None:
    response = call(guarded, "POST", "/v1/chat/completions", headers={"authorization": header}, json=_CHAT)
    assert response.status_code == 200


def test_probes_need_no_key(guarded: Starlette) -> None:
    assert [_get(guarded, path) for path in ("/healthz", "/readyz")] == [200, 200]


@pytest.mark.parametrize("path", [*_PATHS.values(), "/v1/environment"])
def test_without_any_key_all_pass_on_this_machine(app: Starlette, path: str) -> None:
    assert _get(app, path) in (200, 404)
    assert _get(app, path, "whatever a client must send") in (200, 404)


@pytest.mark.parametrize("scope", Scope)
def test_a_scope_opens_its_own_and_nothing_else(app: Starlette, console: Console, scope: Scope) -> None:
    console.keys.create("the first", {Scope.ADMIN})
    secret = console.keys.create("one", {scope}).secret
    opened = {name for name, path in _PATHS.items() if _get(app, path, secret) == 200}
    assert opened == ({Scope.ADMIN, Scope.METRICS} if scope is Scope.ADMIN else {scope})


def test_a_missing_scope_is_named(app: Starlette, console: Console) -> None:
    console.keys.create("the first", {Scope.ADMIN})
    secret = console.keys.create("phone farm", {Scope.INFERENCE}).secret
    response = call(app, "GET", "/admin/models", headers={"authorization": f"Bearer {secret}"})
    assert response.status_code == 403
    assert response.json()["error"] == {
        "message": "the key 'phone farm' has the scopes inference; this needs admin: use a key that has it",
        "type": "invalid_request_error",
        "param": None,
        "code": "missing_scope",
    }


def test_revoking_counts_at_once(app: Starlette, console: Console) -> None:
    console.keys.create("the first", {Scope.ADMIN})
    made = console.keys.create("one", {Scope.INFERENCE})
    assert _get(app, "/v1/models", made.secret) == 200
    console.keys.revoke(made.key.id)
    assert _get(app, "/v1/models", made.secret) == 401


def test_an_inference_key_alone_leaves_administration_to_this_machine(app: Starlette, console: Console) -> None:
    console.keys.create("one", {Scope.INFERENCE})
    assert [_get(app, path) for path in _PATHS.values()] == [401, 200, 200]


def test_a_page_of_another_site_may_not_administer_without_a_key(app: Starlette) -> None:
    assert _get(app, "/admin/models", origin="https://evil.example") == 403
    assert _get(app, "/admin/models", origin="null") == 403
    assert _get(app, "/admin/models", origin="http://console") == 200


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("evil.example", 403),
        ("evil.example:8501", 403),
        ("127.0.0.1.evil.example", 403),
        ("localhost:8501", 200),
        ("127.0.0.1:8501", 200),
        ("[::1]:8501", 200),
        ("app.localhost", 200),
    ],
)
def test_a_name_that_was_led_here_is_not_answered_without_a_key(app: Starlette, host: str, status: int) -> None:
    """DNS rebinding: to the browser the page is of this very site, and a GET has no origin."""
    for path in (*_PATHS.values(), "/admin/models"):
        assert _get(app, path, host=host) == status
        assert _get(app, path, host=host, origin=f"http://{host}") == status
    assert _get(app, "/healthz", host=host) == 200


def test_the_refusal_of_a_name_says_what_to_do(app: Starlette) -> None:
    answer = call(app, "POST", "/tokenize", json={"prompt": "a"}, headers={"host": "evil.example"})
    assert answer.status_code == 403
    assert answer.json()["error"]["code"] == "host_refused"
    assert "CONSOLE_ALLOWED_HOSTS" in answer.json()["error"]["message"]


def test_a_key_or_the_setting_lets_a_name_in(app: Starlette, console: Console) -> None:
    console.settings = console.settings.model_copy(update={"allowed_hosts": ("Models.example",)})
    assert _get(app, "/v1/models", host="models.example:8501") == 200
    assert _get(app, "/v1/models", host="other.example") == 403
    secret = console.keys.create("one", {Scope.INFERENCE}).secret
    assert _get(app, "/v1/models", secret, host="other.example") == 200


def test_keys_are_never_logged(app: Starlette, console: Console, caplog: pytest.LogCaptureFixture) -> None:
    secret = console.keys.create("one", {Scope.INFERENCE}).secret
    with caplog.at_level(logging.DEBUG):
        for path in _PATHS.values():
            _get(app, path, secret)
            _get(app, path, "agc_stranger")
    assert secret not in caplog.text
    assert "agc_stranger" not in caplog.text


def test_the_document_tells_how_to_authenticate(app: Starlette) -> None:
    for mount in ("/v1", "/admin"):
        document = call(app, "GET", f"{mount}/openapi.json").json()
        assert document["components"]["securitySchemes"]["HTTPBearer"]["scheme"] == "bearer"
        operations = [operation for path in document["paths"].values() for operation in path.values()]
        assert all({"HTTPBearer": []} in operation["security"] for operation in operations)


def test_the_openai_client(guarded: Starlette) -> None:
    with serve(guarded) as url:
        with (
            openai.OpenAI(base_url=f"{url}/v1", api_key="wrong", max_retries=0) as stranger,
            pytest.raises(openai.AuthenticationError),
        ):
            stranger.models.list()
        with openai.OpenAI(base_url=f"{url}/v1", api_key="key-two", max_retries=0) as friend:
            assert [model.id for model in friend.models.list()] == ["m"]
