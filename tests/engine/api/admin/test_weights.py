from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette

from engine.console import Console
from engine.weights.keys import generate_key_pair
from tests.engine.api.servers import call
from tests.engine.weights.hub_models import REPO, model_files
from tests.engine.weights.hub_server import Fault, serve_hub
from tests.fakes import save_tiny_llama, wait_until


def _ended(app: Starlette, path: str) -> dict[str, Any]:
    """The answer once nothing is under way."""
    wait_until(lambda: call(app, "GET", path).json()["progress"] is None, 60)
    answer: dict[str, Any] = call(app, "GET", path).json()
    return answer


def test_a_model_of_the_hub_is_pulled(app: Starlette, console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    assert call(app, "GET", "/admin/pull").json() == {"progress": None, "report": None, "error": None}
    monkeypatch.delenv("HF_HUB_OFFLINE")
    with serve_hub() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        commit = hub.publish(REPO, model_files())
        assert call(app, "POST", "/admin/pull", json={"source": REPO}).status_code == 202
        answer = _ended(app, "/admin/pull")
    assert (answer["error"], answer["report"]["source"]) == (None, REPO)
    assert commit.startswith(answer["report"]["revision"])
    assert [entry.name for entry in console.weights.cache.entries()] == [REPO]


def test_a_pull_is_cancelled_and_another_one_has_to_wait(app: Starlette, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE")
    with serve_hub() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        hub.publish(REPO, model_files(num_bytes=400_000))
        hub.fail("model-00001-of-00002.safetensors", *[Fault(bytes_per_s=2_000)] * 9)
        assert call(app, "POST", "/admin/pull", json={"source": REPO}).json()["progress"]["subject"] == REPO
        assert call(app, "POST", "/admin/pull", json={"source": REPO}).status_code == 202
        other = call(app, "POST", "/admin/pull", json={"source": "acme/other"})
        assert (other.status_code, other.json()["error"]["code"]) == (409, "job_running")
        assert call(app, "DELETE", "/admin/pull").status_code == 204
        assert _ended(app, "/admin/pull") == {"progress": None, "report": None, "error": None}


def test_what_cannot_be_pulled_says_why(app: Starlette) -> None:
    assert call(app, "POST", "/admin/pull", json={"source": "/nowhere"}).json()["error"]["code"] == "invalid_weights"
    assert call(app, "POST", "/admin/pull", json={"source": "acme/tiny"}).status_code == 202
    assert "HF_HUB_OFFLINE" in _ended(app, "/admin/pull")["error"]


def test_a_folder_is_signed(app: Starlette, tmp_path: Path) -> None:
    folder, key = save_tiny_llama(tmp_path / "model"), generate_key_pair(tmp_path / "key.pem", "secret")
    body = {"folder": str(folder), "private_key": str(key.private_key), "password": "wrong"}
    path = f"/admin/sign?folder={folder}"
    assert call(app, "POST", "/admin/sign", json=body).status_code == 202
    assert "the password is wrong" in _ended(app, path)["error"]
    assert call(app, "POST", "/admin/sign", json={**body, "password": "secret"}).status_code == 202
    wait_until(lambda: call(app, "GET", path).json()["report"] is not None)
    report = call(app, "GET", path).json()["report"]
    assert (report["signature"], report["signer"]) == (str(folder / "model.sig"), key.fingerprint)
    assert call(app, "DELETE", "/admin/sign").status_code == 204


def test_paths_are_absolute(app: Starlette) -> None:
    body = {"source": "sample", "quantization": {"scheme": "int8-weight"}, "output": "out"}
    for answer in (
        call(app, "POST", "/admin/quantize", json=body),
        call(app, "POST", "/admin/sign", json={"folder": "out", "private_key": "/key"}),
        call(app, "GET", "/admin/sign?folder=out"),
    ):
        assert (answer.status_code, "relative path" in answer.json()["error"]["message"]) == (400, True)


def test_a_model_is_quantized_into_a_folder(app: Starlette, tiny_folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "int8"
    body = {
        "source": str(tiny_folder),
        "device": "cpu",
        "quantization": {"scheme": "int8-weight"},
        "output": str(output),
    }
    assert call(app, "POST", "/admin/quantize", json=body).status_code == 202
    answer = _ended(app, "/admin/quantize")
    assert answer["error"] is None
    assert answer["report"]["size_bytes"] == sum(file.stat().st_size for file in output.iterdir())
    assert answer["report"]["quantization"]["scheme"] == "int8-weight"
    again = call(app, "POST", "/admin/quantize", json=body)
    assert (again.status_code, "new or empty" in again.json()["error"]["message"]) == (400, True)
    assert call(app, "DELETE", "/admin/quantize").status_code == 204
