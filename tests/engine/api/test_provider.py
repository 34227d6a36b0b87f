from __future__ import annotations

import pytest

from tests.engine.api.servers import build_app, call


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/m"])
def test_before_the_start_and_after_the_end_the_api_says_so(path: str) -> None:
    response = call(build_app(None), "GET", path)
    assert response.status_code == 503
    assert "starting or stopping" in response.json()["error"]["message"]
