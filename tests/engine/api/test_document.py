from __future__ import annotations

import json

import pytest
from starlette.applications import Starlette

from tests.engine.api.servers import build_app, call


@pytest.fixture(scope="module")
def empty_app() -> Starlette:
    return build_app(None)


@pytest.mark.parametrize("mount", ["/v1", "/admin"])
def test_every_answer_that_an_operation_may_give_is_described(empty_app: Starlette, mount: str) -> None:
    document = call(empty_app, "GET", f"{mount}/openapi.json").json()
    assert "ValidationError" not in json.dumps(document)
    for methods in document["paths"].values():
        for operation in methods.values():
            assert {"400", "401", "403", "408", "413", "500", "503"} <= operation["responses"].keys()
            assert "422" not in operation["responses"]


def test_what_streams_is_described_as_a_stream_too(empty_app: Starlette) -> None:
    paths = call(empty_app, "GET", "/v1/openapi.json").json()["paths"]
    for path in ("/chat/completions", "/completions", "/responses"):
        content = paths[path]["post"]["responses"]["200"]["content"]
        assert content.keys() == {"application/json", "text/event-stream"}
    assert "text/event-stream" not in paths["/embeddings"]["post"]["responses"]["200"]["content"]
