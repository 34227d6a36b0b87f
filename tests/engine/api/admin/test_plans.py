from __future__ import annotations

from pathlib import Path

import pytest
from starlette.applications import Starlette

from engine.console import Console
from tests.engine.api.servers import call
from tests.engine.weights.hub_models import REPO
from tests.engine.weights.hub_server import serve_hub


def test_a_plan_says_whether_it_fits_with_its_numbers(app: Starlette, tiny_folder: Path) -> None:
    body = {"source": str(tiny_folder), "device": "cpu", "dtype": "float32", "context_length": 128, "max_running": 2}
    plan = call(app, "POST", "/admin/plan", json=body).json()
    assert plan["verdict"] == "fits"
    assert 0 < plan["needed_bytes"] < plan["budget"]["free_bytes"]


def test_a_model_that_is_not_here_cannot_be_planned(app: Starlette) -> None:
    response = call(app, "POST", "/admin/plan", json={"source": "/nowhere"})
    assert response.status_code == 400
    assert response.json()["error"]["code"] == "invalid_weights"


def test_a_model_of_the_hub_is_planned_before_and_after_it_is_pulled(
    app: Starlette, console: Console, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = {"source": REPO, "device": "cpu", "dtype": "float32", "context_length": 128}
    refused = call(app, "POST", "/admin/plan", json=body)
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "invalid_weights")
    assert "HF_HUB_OFFLINE=1: unset it" in refused.json()["error"]["message"]
    monkeypatch.delenv("HF_HUB_OFFLINE")
    with serve_hub() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        hub.publish(REPO, {file.name: file.read_bytes() for file in tiny_folder.iterdir()})
        before = call(app, "POST", "/admin/plan", json=body).json()
        assert call(app, "POST", "/admin/pull", json={"source": REPO}).status_code == 202
        console.pulls.wait(30)
    plan = call(app, "POST", "/admin/plan", json=body).json()  # the hub is not there any more
    local = call(app, "POST", "/admin/plan", json={**body, "source": str(tiny_folder)}).json()
    assert (plan["name"], plan["verdict"], plan["lines"]) == ("tiny", "fits", local["lines"])
    assert (before["lines"], plan["download"]) == (local["lines"], None)
    assert before["download"]["left_bytes"] > 0
    assert before["download"]["folder"] == str(console.weights.cache.root)
