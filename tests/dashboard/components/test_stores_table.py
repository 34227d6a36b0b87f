from __future__ import annotations

from pathlib import Path

import pytest

from dashboard.components.stores_table import console_version, size_on_disk, with_logs


def test_size_counts_files_below_folders_once(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "one").write_bytes(b"12345")
    (tmp_path / "a" / "b" / "two").write_bytes(b"678")
    (tmp_path / "file").write_bytes(b"9")
    assert size_on_disk([tmp_path / "a", tmp_path / "file", tmp_path / "absent"]) == 9


def test_what_is_not_there_has_no_size(tmp_path: Path) -> None:
    assert size_on_disk([tmp_path / "absent"]) is None
    assert size_on_disk([]) is None


def test_logs_lie_beside_their_database() -> None:
    assert [file.name for file in with_logs(Path("x/state.sqlite"))] == [
        "state.sqlite",
        "state.sqlite.wal",
        "state.sqlite-wal",
        "state.sqlite-shm",
    ]


@pytest.mark.parametrize("content", ["", "[project]\nname = 'x'", "not toml ="])
def test_version_that_cannot_be_told(tmp_path: Path, content: str) -> None:
    file = tmp_path / "pyproject.toml"
    assert console_version(file) is None
    file.write_text(content)
    assert console_version(file) is None


def test_version() -> None:
    version = console_version()
    assert version is not None
    assert version[0].isdigit()
