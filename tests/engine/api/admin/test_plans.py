from __future__ import annotations

from pathlib import Path

from starlette.applications import Starlette

from tests.engine.api.servers import call


def test_a_plan_says_whether_it_fits_with_its_numbers(app: Starlette, tiny_folder: Path) -> None:
    body = {"source": str(tiny_folder), "device": "cpu", "dtype": "float32", "context_length": 128, "max_running": 2}
    plan = call(app, "POST", "/admin/plan", json=body).json()
    assert plan["verdict"] == "fits"
    assert 0 < plan["needed_bytes"] < plan["budget"]["free_bytes"]


def test_a_model_that_is_not_here_cannot_be_planned(app: Starlette) -> None:
    response = call(app, "POST", "/admin/plan", json={"source": "/nowhere"})
    assert response.status_code == 400
    assert response.json()["error"]["code"] == "invalid_weights"
