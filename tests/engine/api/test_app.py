from __future__ import annotations

from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from engine.api.app import build_headless_app
from engine.config import Settings
from tests.engine.api.servers import build_app, call
from tests.fakes import wait_until


def test_the_console_lives_as_long_as_the_server(tmp_path: Path, tiny_folder: Path) -> None:
    settings = Settings(home=tmp_path, model=str(tiny_folder), model_name="tiny", device="cpu", kv_cache_gib=0.1)
    app = build_headless_app(settings)
    assert call(app, "GET", "/readyz").status_code == 503
    with TestClient(app) as client:
        wait_until(lambda: client.get("/readyz").status_code == 200, 60)
        body = {"model": "tiny", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 3}
        assert client.post("/v1/chat/completions", json=body).status_code == 200
    assert call(app, "GET", "/v1/models").status_code == 503
    assert (tmp_path / "measurements.duckdb").is_file()


def test_a_model_that_cannot_be_found_leaves_the_server_up(tmp_path: Path) -> None:
    with TestClient(build_headless_app(Settings(home=tmp_path, model="/nowhere"))) as client:
        assert client.get("/healthz").status_code == 200
        assert client.get("/readyz").status_code == 503


@pytest.mark.parametrize("path", ["/v1/files/a%0Ab", "/v1/nothing", "/admin/models/a%0Ab/unload"])
def test_a_path_that_is_none_is_answered_by_the_api_itself(app: Starlette, path: str) -> None:
    answer = call(app, "GET", path)
    assert answer.status_code == 404
    assert answer.json()["error"]["type"] == "invalid_request_error"
    assert answer.headers["x-request-id"]


def test_a_method_that_is_not_allowed_is_answered_with_those_that_are(app: Starlette) -> None:
    answer = call(app, "DELETE", "/v1/chat/completions")
    assert answer.status_code == 405
    assert answer.headers["allow"] == "POST"


def test_the_description_of_the_api_is_served() -> None:
    paths = call(build_app(None), "GET", "/v1/openapi.json").json()["paths"]
    assert set(paths) == {
        "/batches",
        "/batches/{batch_id}",
        "/batches/{batch_id}/cancel",
        "/chat/completions",
        "/completions",
        "/detokenize",
        "/embeddings",
        "/environment",
        "/files",
        "/files/{file_id}",
        "/files/{file_id}/content",
        "/models",
        "/models/{name}",
        "/responses",
        "/responses/{response_id}",
        "/responses/{response_id}/cancel",
        "/responses/{response_id}/input_items",
        "/tokenize",
    }
