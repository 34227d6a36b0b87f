from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
from pydantic import SecretStr
from starlette.applications import Starlette

from engine.api.auth import is_known_key
from engine.config import Settings
from tests.engine.api.servers import build_app, call, fake_console, load_ready, serve
from tests.fakes import FakeBackend

_KEYS = (SecretStr("key-one"), SecretStr("key-two"))
_CHAT = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}


@pytest.fixture
def guarded(tmp_path: Path, backend: FakeBackend) -> Iterator[Starlette]:
    with fake_console(Settings(home=tmp_path, api_keys=_KEYS), backend) as console:
        load_ready(console)
        yield build_app(console)


@pytest.mark.parametrize(
    ("key", "is_known"),
    [("key-one", True), ("key-two", True), ("key-three", False), ("", False), ("key", False), ("schlüssel", False)],
)
def test_known_keys(key: str, is_known: bool) -> None:
    assert is_known_key(key, Settings(api_keys=_KEYS)) is is_known


@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Bearer ", "Bearer wrong", "Basic key-one", "key-one", "Bearer key-one key-two"]
)
@pytest.mark.parametrize(("method", "path"), [("GET", "/v1/models"), ("POST", "/v1/chat/completions")])
def test_without_a_known_key_all_is_401(guarded: Starlette, header: str | None, method: str, path: str) -> None:
    headers = {} if header is None else {"authorization": header}
    response = call(guarded, method, path, headers=headers, json=_CHAT if method == "POST" else None)
    assert response.status_code == 401
    error = response.json()["error"]
    assert error["code"] == "invalid_api_key"
    assert "Authorization: Bearer KEY" in error["message"]
    assert "key-one" not in response.text


@pytest.mark.parametrize("header", ["Bearer key-one", "bearer key-two", "Bearer  key-one "])
def test_with_a_key(guarded: Starlette, header: str) -> None:
    response = call(guarded, "POST", "/v1/chat/completions", headers={"authorization": header}, json=_CHAT)
    assert response.status_code == 200


def test_probes_need_no_key(guarded: Starlette) -> None:
    assert [call(guarded, "GET", path).status_code for path in ("/healthz", "/readyz", "/metrics")] == [200] * 3


def test_without_configured_keys_all_pass(app: Starlette) -> None:
    assert call(app, "GET", "/v1/models").status_code == 200


def test_the_openai_client(guarded: Starlette) -> None:
    with serve(guarded) as url:
        with (
            openai.OpenAI(base_url=f"{url}/v1", api_key="wrong", max_retries=0) as stranger,
            pytest.raises(openai.AuthenticationError),
        ):
            stranger.models.list()
        with openai.OpenAI(base_url=f"{url}/v1", api_key="key-two", max_retries=0) as friend:
            assert [model.id for model in friend.models.list()] == ["m"]
