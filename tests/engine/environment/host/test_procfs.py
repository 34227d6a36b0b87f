from __future__ import annotations

import math
from pathlib import Path

import pytest

from engine.environment.host.procfs import read_limits, read_meminfo, read_number
from tests.engine.environment.host.tree import LIMITS, MEMINFO, write_tree


def test_meminfo_is_told_in_bytes(tmp_path: Path) -> None:
    info = read_meminfo(write_tree(tmp_path, {"proc/meminfo": MEMINFO}))
    assert info["MemTotal"] == 24_683_656 * 1024
    assert info["HugePages_Total"] == 0


def test_limits_have_a_soft_and_a_hard_side(tmp_path: Path) -> None:
    limits = read_limits(write_tree(tmp_path, {"proc/self/limits": LIMITS}))
    assert limits["Max open files"] == (1024, 20000)
    assert limits["Max cpu time"] == (math.inf, math.inf)
    assert limits["Max nice priority"] == (0, 0)


@pytest.mark.parametrize(("text", "number"), [("65530\n", 65530), ("-1\n", -1), ("max\n", None), ("", None)])
def test_a_file_that_is_a_number(tmp_path: Path, text: str, number: int | None) -> None:
    assert read_number(write_tree(tmp_path, {"n": text}) / "n") == number


def test_missing_files_are_empty(tmp_path: Path) -> None:
    assert (read_meminfo(tmp_path), read_limits(tmp_path), read_number(tmp_path / "n")) == ({}, {}, None)
