"""The short way to kept answers; what becomes of them over a real server is in test_response_cache.py."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette

from engine.config import Settings
from engine.console import Console
from tests.engine.api.servers import build_app, call, fake_console, load_ready
from tests.fakes import FakeBackend

_BODY = json.dumps({"model": "m", "messages": [{"role": "user", "content": "Hi"}], "temperature": 0}).encode()
_HEADERS = {"authorization": "Bearer one", "content-type": "application/json"}


@pytest.fixture
def console(tmp_path: Path, backend: FakeBackend) -> Iterator[Console]:
    settings = Settings(home=tmp_path, api_keys=("one", "two"), response_cache_mib=1)  # type: ignore[arg-type]
    with fake_console(settings, backend) as one:
        load_ready(one)
        yield one


def _ask(app: Starlette, headers: Any = _HEADERS, path: str = "/v1/chat/completions") -> httpx.Response:
    return call(app, "POST", path, headers=headers, content=_BODY)


@pytest.fixture
def app(console: Console, monkeypatch: pytest.MonkeyPatch) -> Starlette:
    """With an answer that is kept in its bytes, and nobody who would write another one."""
    one = build_app(console)
    assert [_ask(one).headers["x-cache"] for _ in range(2)] == ["MISS", "HIT"]

    def refuse(*_: Any) -> Any:
        raise AssertionError("it was asked")

    monkeypatch.setattr(console.gateway, "stream", refuse)
    return one


def test_the_same_bytes_of_the_same_key_are_answered_without_asking_anybody(app: Starlette) -> None:
    answer = _ask(app)
    assert (answer.status_code, answer.headers["x-cache"]) == (200, "HIT")
    assert answer.headers["x-request-id"] == answer.json()["id"]


@pytest.mark.parametrize(
    "headers",
    [
        {**_HEADERS, "authorization": "Bearer two"},
        {**_HEADERS, "cache-control": "no-cache"},
        {**_HEADERS, "content-type": "application/json; charset=utf-8"},
    ],
)
def test_anything_else_is_asked_for(app: Starlette, headers: dict[str, str]) -> None:
    assert _ask(app, headers).status_code == 500


@pytest.mark.parametrize("secrets", [("wrong", "one"), ("", "one")])
def test_the_first_of_two_keys_counts_here_as_elsewhere(app: Starlette, secrets: tuple[str, str]) -> None:
    pairs = [("content-type", "application/json"), *(("authorization", f"Bearer {secret}") for secret in secrets)]
    assert _ask(app, pairs).status_code == 401


def test_the_model_must_still_be_there(app: Starlette, console: Console) -> None:
    console.engine.unload("m", 0.0)
    assert _ask(app).status_code == 500  # it was asked for
