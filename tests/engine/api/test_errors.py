from __future__ import annotations

import pytest
from starlette.applications import Starlette

from engine.api.errors import console_error_body, error_body
from engine.console import Console
from engine.errors import InvalidRequestError, WorkerDiedError
from tests.engine.api.servers import call

_PATH = "/v1/chat/completions"


def test_body_of_a_callers_error() -> None:
    assert console_error_body(InvalidRequestError("top_p is 7", "top_p")) == {
        "error": {
            "message": "top_p is 7",
            "type": "invalid_request_error",
            "param": "top_p",
            "code": "invalid_request",
        }
    }


def test_body_of_our_error() -> None:
    body = console_error_body(WorkerDiedError("it died"))
    assert (body["error"]["type"], body["error"]["param"]) == ("server_error", None)
    assert error_body("m", "c", 499)["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    "raw", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b'{"model": ' + b"9" * 5_000 + b"}"]
)
def test_a_body_that_cannot_be_read(app: Starlette, raw: bytes) -> None:
    response = call(app, "POST", _PATH, content=raw, headers={"content-type": "application/json"})
    assert response.status_code == 400
    assert set(response.json()["error"]) == {"message", "type", "param", "code"}


def test_a_broken_surrogate_is_refused(app: Starlette) -> None:
    raw = rb'{"model": "m", "messages": [{"role": "user", "content": "\ud800"}]}'
    response = call(app, "POST", _PATH, content=raw, headers={"content-type": "application/json"})
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "messages"


@pytest.mark.parametrize(
    ("path", "fields", "param"),
    [
        (_PATH, r'"user": "\ud800"', "user"),
        (_PATH, r'"tools": [{"type": "function", "function": {"name": "f", "parameters": {"a": NaN}}}]', "tools"),
        ("/v1/responses", r'"tools": [{"type": "function", "name": "f", "parameters": {"a": NaN}}]', "tools"),
        (
            "/v1/responses",
            r'"text": {"format": {"type": "json_schema", "name": "x", "schema": {"enum": [Infinity]}}}',
            "text",
        ),
        ("/v1/responses", r'"previous_response_id": "\ud800"', "previous_response_id"),
        ("/v1/responses", r'"model": "\ud800"', "model"),
    ],
)
def test_what_cannot_be_written_again_is_refused(app: Starlette, path: str, fields: str, param: str) -> None:
    prompt = '"messages": [{"role": "user", "content": "Hi"}]' if path == _PATH else '"input": "Hi"'
    raw = f'{{"model": "m", {prompt}, {fields}}}'
    response = call(app, "POST", path, content=raw, headers={"content-type": "application/json"})
    assert response.status_code == 400
    assert response.json()["error"]["param"].startswith(param)


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/v1/nowhere", 404), ("GET", _PATH, 405), ("DELETE", "/v1/models", 405)]
)
def test_wrong_ways_have_the_same_shape(app: Starlette, method: str, path: str, status: int) -> None:
    response = call(app, method, path)
    assert response.status_code == status
    assert response.json()["error"]["code"] == "http_error"


def test_an_unforeseen_error_tells_nothing_but_the_log(
    app: Starlette, console: Console, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise ZeroDivisionError("secret detail")

    monkeypatch.setattr(console.engine, "instances", fail)
    response = call(app, "GET", "/v1/models")
    assert response.status_code == 500
    assert response.json()["error"]["code"] == "internal_error"
    assert "secret detail" not in response.text
    assert "GET /v1/models failed" in caplog.text
