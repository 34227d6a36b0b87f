from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette

from engine.config import Settings
from engine.console import Console
from engine.scheduling.quota import Quota
from engine.state.api_keys import Scope
from tests.engine.api.servers import await_records, build_app, call, fake_console
from tests.fakes import FakeBackend

_CHAT: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
_ASKED = [
    ("POST", "/v1/chat/completions", _CHAT, 200),
    ("POST", "/v1/chat/completions", {**_CHAT, "stream": True}, 200),
    ("POST", "/v1/completions", {"model": "m", "prompt": "Hi"}, 200),
    ("POST", "/v1/responses", {"model": "m", "input": "Hi"}, 200),
    ("POST", "/v1/responses", {"model": "m", "input": "Hi", "stream": True}, 200),
    ("POST", "/v1/embeddings", {"model": "m", "input": "Hi"}, 200),
    ("POST", "/v1/tokenize", {"prompt": "Hi"}, 200),
    ("POST", "/tokenize", {"prompt": "Hi"}, 200),
    ("POST", "/detokenize", {"tokens": [72]}, 200),
    ("GET", "/v1/models", None, 200),
    ("GET", "/admin/models", None, 200),
    ("GET", "/v1/nowhere", None, 404),
    ("POST", "/v1/chat/completions", {"model": "m"}, 400),
    ("POST", "/v1/chat/completions", {**_CHAT, "model": "other"}, 404),
]


def test_every_answer_has_the_clients_id(app: Starlette) -> None:
    for method, path, body, status in _ASKED:
        response = call(app, method, path, json=body, headers={"x-request-id": "trace-7"})
        assert (path, response.status_code) == (path, status)
        assert response.headers.get_list("x-request-id") == ["trace-7"]


def test_without_one_it_is_drawn(app: Starlette) -> None:
    drawn: set[str] = set()
    for method, path, body, _ in _ASKED:
        (found,) = call(app, method, path, json=body).headers.get_list("x-request-id")
        assert re.fullmatch(r"(req-|cmpl-|resp_|embd-)[0-9a-f]{16,32}", found)
        drawn.add(found)
    assert len(drawn) == len(_ASKED)


@pytest.mark.parametrize(("path", "body"), [("/v1/tokenize", {"prompt": "Hi"}), ("/v1/chat/completions", _CHAT)])
def test_an_id_that_is_none_is_refused(path: str, body: dict[str, Any]) -> None:
    response = call(build_app(None), "POST", path, json=body, headers={"x-request-id": "-a"})
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "x-request-id"
    assert response.headers["x-request-id"].startswith("req-")


def test_a_body_that_is_too_large_has_one_too() -> None:
    response = call(build_app(None), "POST", "/tokenize", content=b"x" * (9 << 20), headers={"x-request-id": "trace-8"})
    assert (response.status_code, response.headers["x-request-id"]) == (413, "trace-8")


def test_records_of_embeddings_have_the_clients_id(app: Starlette, console: Console) -> None:
    call(app, "POST", "/v1/embeddings", json={"model": "m", "input": "Hi"}, headers={"x-request-id": "trace-9"})
    (record,) = await_records(console, 1)
    assert record.request_id == "trace-9"


def test_a_refusal_has_the_headers_of_its_keys_quota(tmp_path: Path) -> None:
    """A request larger than the quota, an unknown model, and one more request than may be."""
    with fake_console(Settings(home=tmp_path, api_keys="admin"), FakeBackend()) as console:
        quota = Quota(requests_per_minute=1, tokens_per_minute=10)
        _, secret = console.keys.create("small", [Scope.INFERENCE], quota, None)
        bearer = {"authorization": f"Bearer {secret}"}
        app = build_app(console)
        for fields, status in (({"max_tokens": 50}, 400), ({"max_tokens": 1}, 404), ({"max_tokens": 1}, 429)):
            response = call(app, "POST", "/v1/chat/completions", json={**_CHAT, **fields}, headers=bearer)
            assert response.status_code == status
            assert response.headers["x-ratelimit-limit-tokens"] == "10"
            assert response.headers["x-ratelimit-limit-requests"] == "1"
