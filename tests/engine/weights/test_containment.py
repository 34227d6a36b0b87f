from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import WeightsError
from engine.weights.containment import check_name, resolve_inside, why_not_a_name


@pytest.mark.parametrize("name", ["model.safetensors", "original/params.json", "Modèle 1.gguf", "a..b", "..."])
def test_names_of_files(name: str) -> None:
    assert why_not_a_name(name) is None
    assert check_name(name, "x") == name


@pytest.mark.parametrize(
    "name",
    [
        *("", ".", "..", "../x", "a/../../x", "a/..", "/etc/passwd", "a//b", "a/", "./a", "..\\x", "C:\\x"),
        *("a\0b", "a\nb", "x" * 1025, "\udc80", 3, None, ["a"]),
        *(".tmp-model.safetensors", "a/.tmp-x/b"),
    ],
)
def test_names_that_are_refused(name: object) -> None:
    with pytest.raises(
        WeightsError, match=r"index\.json names the file .* which is refused: .*; fetch the model again"
    ):
        check_name(name, "index.json")


@given(st.text(alphabet=st.sampled_from("a./\\\0 ~é"), max_size=12))
def test_no_name_leads_out(name: str) -> None:
    if why_not_a_name(name) is None:
        assert Path("/root/folder", name).resolve().is_relative_to("/root/folder")


def test_links_stay_in_the_folder_or_in_what_is_vouched_for(tmp_path: Path) -> None:
    folder, cache = tmp_path / "model", tmp_path / "cache"
    folder.mkdir()
    cache.mkdir()
    (cache / "blob").touch()
    (folder / "real").touch()
    (folder / "inner").symlink_to("real")
    (folder / "outer").symlink_to(cache / "blob")
    (folder / "loop").symlink_to("loop")
    assert resolve_inside(folder, "inner") == folder / "real"
    assert resolve_inside(folder, "outer", [cache]) == cache / "blob"
    with pytest.raises(
        WeightsError, match=r"model/outer is a link that leads out of the model folder, to .*/cache/blob"
    ):
        resolve_inside(folder, "outer")
    with pytest.raises(WeightsError, match="loop cannot be followed"):
        resolve_inside(folder, "loop")


def test_a_snapshot_of_the_hubs_own_cache_links_to_its_blobs(tmp_path: Path) -> None:
    snapshot, blobs = tmp_path / "models--a--b" / "snapshots" / "0123", tmp_path / "models--a--b" / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    (blobs / "f00d").touch()
    (snapshot / "config.json").symlink_to("../../blobs/f00d")
    (snapshot / "evil").symlink_to("/etc/passwd")
    assert resolve_inside(snapshot, "config.json") == blobs / "f00d"
    with pytest.raises(WeightsError, match="leads out"):
        resolve_inside(snapshot, "evil")
