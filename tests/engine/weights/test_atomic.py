from __future__ import annotations

import os
from pathlib import Path

import pytest

from engine.errors import WeightsError
from engine.weights.atomic import TEMPORARY_PREFIX, write_text


def test_the_text_replaces_the_old_one_and_nothing_else_is_left(tmp_path: Path) -> None:
    file = tmp_path / "a" / "f.json"
    write_text(file, "one")
    write_text(file, "twö", mode=0o644)
    assert file.read_text() == "twö"
    assert file.stat().st_mode & 0o777 == 0o644
    assert list(file.parent.iterdir()) == [file]


def test_what_killed_writers_left_goes_after_an_hour(tmp_path: Path) -> None:
    old, new = tmp_path / f"{TEMPORARY_PREFIX}old", tmp_path / f"{TEMPORARY_PREFIX}new"
    old.touch()
    new.touch()
    os.utime(old, (0, 0))
    write_text(tmp_path / "f", "x")
    assert (old.exists(), new.exists()) == (False, True)


def test_a_place_that_cannot_be_written(tmp_path: Path, small_disk: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(WeightsError, match=r"cannot write .*file/f: .*free space there"):
        write_text(tmp_path / "file" / "f", "x")
    write_text(small_disk / "f", "old")
    with pytest.raises(WeightsError, match="No space left"):
        write_text(small_disk / "f", "x" * 200_000)
    assert (small_disk / "f").read_text() == "old"
    assert list(small_disk.iterdir()) == [small_disk / "f"]
