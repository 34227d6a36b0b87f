from __future__ import annotations

import os
import shutil
from pathlib import Path

from starlette.applications import Starlette

from engine.console import Console
from tests.engine.api.servers import call
from tests.fakes import save_tiny_llama, wait_until


def test_files_that_entries_share_count_once(app: Starlette, console: Console) -> None:
    sizes = call(app, "GET", "/admin/cache").json()
    assert sizes["weights"] == {"num_entries": 0, "size_bytes": 0, "max_bytes": None}
    assert sizes["responses"] == call(app, "GET", "/admin/cache/responses").json()
    assert sizes["responses"]["max_bytes"] == 0
    first, second = (console.weights.cache.root / (letter * 64) for letter in "ab")
    for folder in (first, second):
        folder.mkdir(parents=True)
    (first / "model.safetensors").write_bytes(b"x" * 100)
    os.link(first / "model.safetensors", second / "model.safetensors")
    assert call(app, "GET", "/admin/cache").json()["weights"] == {
        "num_entries": 2,
        "size_bytes": 100,
        "max_bytes": None,
    }


def test_the_cache_is_verified_and_damage_is_named(app: Starlette, console: Console, tmp_path: Path) -> None:
    folder = save_tiny_llama(tmp_path / "model")
    gone = console.weights.cache.root / ("c" * 64)
    shutil.copytree(folder, gone)
    (gone / "model.safetensors").write_bytes(b"torn")
    assert call(app, "GET", "/admin/cache/verify").json() == {"progress": None, "report": None, "error": None}
    assert call(app, "POST", "/admin/cache/verify").status_code == 202
    wait_until(lambda: call(app, "GET", "/admin/cache/verify").json()["report"] is not None)
    (damaged,) = call(app, "GET", "/admin/cache/verify").json()["report"]["damaged"]
    assert damaged["damage"]["path"] == "model.safetensors"
    assert call(app, "DELETE", "/admin/cache/verify").status_code == 204
