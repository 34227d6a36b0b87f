from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.errors import WeightsError
from engine.weights.manifest import Changes
from engine.weights.manifest_store import Glance, ManifestStore
from tests.engine.weights.models import age, make_folder, quiet
from tests.fakes import FakeClock


def test_a_pin_is_kept_and_its_first_time_too(tmp_path: Path) -> None:
    clock = FakeClock()
    folder, store = make_folder(tmp_path / "m"), ManifestStore(tmp_path / "weights" / "manifests", wall=clock.wall)
    assert store.pinned(folder) is None
    first = store.pin(folder, store.make(folder, quiet, is_full=False))
    clock.advance(60)
    (folder / "config.json").write_text("{ }")
    again = store.pin(folder, store.make(folder, quiet, is_full=False))
    assert (again.first_trusted_at_s, again.trusted_at_s) == (first.trusted_at_s, first.trusted_at_s + 60)
    reopened = ManifestStore(store.root)
    assert reopened.pinned(folder) == again
    assert reopened.pinned(tmp_path / "w" / ".." / "m") == again
    assert [path.stat().st_mode & 0o777 for path in store.root.iterdir()] == [0o600] * 2
    store.forget(folder)
    assert store.pinned(folder) is None


def test_another_folder_is_another_model(tmp_path: Path) -> None:
    store = ManifestStore(tmp_path / "manifests")
    one, two = make_folder(tmp_path / "one"), make_folder(tmp_path / "two")
    store.pin(one, store.make(one, quiet, is_full=True))
    assert store.pinned(two) is None


def test_files_may_be_links_into_the_cache_around_the_store(tmp_path: Path) -> None:
    folder, store = make_folder(tmp_path / "m"), ManifestStore(tmp_path / "weights" / "manifests")
    (tmp_path / "weights").mkdir()
    (folder / "config.json").rename(tmp_path / "weights" / "blob")
    (folder / "config.json").symlink_to(tmp_path / "weights" / "blob")
    assert "config.json" in store.make(folder, quiet, is_full=True).digests
    with pytest.raises(WeightsError, match="leads out"):
        ManifestStore(tmp_path / "weights" / "manifests", link_roots=()).make(folder, quiet, is_full=True)


def test_a_glance_tells_what_is_sure_and_what_is_not(tmp_path: Path) -> None:
    folder, store = make_folder(tmp_path / "m"), ManifestStore(tmp_path / "manifests")
    pin = store.pin(folder, store.make(folder, quiet, is_full=False))
    assert store.glance(folder, pin) == Glance(Changes(), ())
    (folder / "config.json").write_text("{  }")
    (folder / "README.md").unlink()
    (folder / "new.json").touch()
    (folder / "original" / "params.json").write_text("{}")
    changes = Changes(("config.json",), ("README.md",), ("new.json",))
    assert store.glance(folder, pin) == Glance(changes, ("original/params.json",))
    age(folder / "original" / "params.json")
    store.make(folder, quiet, is_full=False)
    glance = store.glance(folder, pin)
    assert glance.changes.changed == ("config.json", "original/params.json")
    assert glance.untold == ()


def test_a_pin_that_cannot_be_read_is_named_and_can_be_replaced(tmp_path: Path) -> None:
    folder, store = make_folder(tmp_path / "m"), ManifestStore(tmp_path / "manifests")
    manifest = store.make(folder, quiet, is_full=True)
    store.pin(folder, manifest)
    file = next(store.root.glob("*.pin.json"))
    good = json.loads(file.read_text())
    for raw in (
        b"",
        b"[]",
        b"{}",
        b"\xff",
        b"[" * 100_000,
        json.dumps({**good, "root": 3}).encode(),
        json.dumps({**good, "trusted_at_s": "yesterday"}).encode(),
        json.dumps(good).replace(str(good["trusted_at_s"]), "1e999").encode(),
        json.dumps({**good, "manifest": {"files": [], "version": 9}}).encode(),
    ):
        file.write_bytes(raw)
        with pytest.raises(WeightsError, match=r"\.pin\.json cannot be read as a .*; trust the model again"):
            store.pinned(folder)
    assert store.pin(folder, manifest) == store.pinned(folder)
    file.write_bytes(json.dumps(good).encode())
    assert store.pinned(folder) is not None


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(raw=st.binary(max_size=100))
def test_no_bytes_do_worse_than_a_refusal(tmp_path: Path, raw: bytes) -> None:
    folder, store = make_folder(tmp_path / "m"), ManifestStore(tmp_path / "manifests")
    store.pin(folder, store.make(folder, quiet, is_full=True))
    next(store.root.glob("*.pin.json")).write_bytes(raw)
    with pytest.raises(WeightsError):
        store.pinned(folder)


def test_a_store_that_cannot_be_written(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "m")
    (tmp_path / "file").touch()
    store = ManifestStore(tmp_path / "file" / "manifests")
    with pytest.raises(WeightsError, match=r"cannot write|cannot be read"):
        store.pin(folder, store.make(folder, quiet, is_full=True))
