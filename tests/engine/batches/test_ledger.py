from __future__ import annotations

import errno
import json
import os
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.batches.ledger import Ledger

_NAMES = [f"row-{index}" for index in range(6)]


def _line(custom_id: str) -> dict[str, Any]:
    return {"id": f"batch_req_{custom_id}", "custom_id": custom_id, "response": {"body": "ä\n"}, "error": None}


def _open(folder: Path) -> Ledger:
    return Ledger(folder / "output", folder / "errors")


def _ids(folder: Path) -> Counter[str]:
    files = (folder / "output", folder / "errors")
    return Counter(json.loads(line)["custom_id"] for file in files for line in file.read_text().splitlines())


def test_what_was_added_is_there_when_it_is_opened_again(tmp_path: Path) -> None:
    with _open(tmp_path) as ledger:
        ledger.add(_line("a"), is_error=False)
        ledger.add(_line("b"), is_error=True)
        ledger.sync()
    with _open(tmp_path) as again:
        assert (again.num_completed, again.num_failed) == (1, 1)
        assert [again.has(name) for name in ("a", "b", "c")] == [True, True, False]


def test_a_row_is_not_written_twice(tmp_path: Path) -> None:
    with _open(tmp_path) as ledger:
        ledger.add(_line("a"), is_error=False)
        with pytest.raises(ValueError, match="'a' is done"):
            ledger.add(_line("a"), is_error=True)
    assert _ids(tmp_path) == {"a": 1}


@pytest.mark.parametrize("torn", [b'{"custom_id":"b"', b"\0\0\0\0\n", b"[]\n", b'{"custom_id":7}\n', b"[" * 100_000])
def test_a_torn_line_goes_with_all_that_follows(tmp_path: Path, torn: bytes) -> None:
    with _open(tmp_path) as ledger:
        ledger.add(_line("a"), is_error=False)
    with (tmp_path / "output").open("ab") as stream:
        stream.write(torn + json.dumps(_line("c")).encode() + b"\n")
    with _open(tmp_path) as again:
        assert (again.has("a"), again.has("c")) == (True, False)
        again.add(_line("c"), is_error=False)
    assert _ids(tmp_path) == {"a": 1, "c": 1}


def test_a_full_disk_leaves_nothing_of_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write

    def fill_up(handle: int, content: bytes) -> int:
        if len(content) < 20:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(handle, content[:-10])

    with _open(tmp_path) as ledger:
        monkeypatch.setattr("engine.batches.ledger.os.write", fill_up)
        with pytest.raises(OSError, match="No space"):
            ledger.add(_line("a"), is_error=False)
        monkeypatch.undo()
        assert not ledger.has("a")
        assert (tmp_path / "output").read_bytes() == b""
        ledger.add(_line("a"), is_error=False)
    assert _ids(tmp_path) == {"a": 1}


def test_syncing_after_the_end_does_nothing(tmp_path: Path) -> None:
    ledger = _open(tmp_path)
    ledger.close()
    ledger.sync()


@given(
    st.lists(
        st.tuples(st.permutations(_NAMES), st.integers(0, 6), st.integers(0, 200), st.booleans()),
        max_size=6,
    ),
    st.permutations(_NAMES),
)
def test_no_row_is_lost_or_doubled(crashes: list[tuple[list[str], int, int, bool]], last: list[str]) -> None:
    """Rows end in any order; crashes cut any number of bytes, those of several lines too, off either file."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for order, num_done, cut_bytes, is_output_cut in crashes:
            with _open(folder) as ledger:
                for custom_id in [one for one in order if not ledger.has(one)][:num_done]:
                    ledger.add(_line(custom_id), is_error=custom_id in _NAMES[:2])
            torn = folder / ("output" if is_output_cut else "errors")
            os.truncate(torn, max(0, torn.stat().st_size - cut_bytes))
        with _open(folder) as ledger:
            for custom_id in last:
                if not ledger.has(custom_id):
                    ledger.add(_line(custom_id), is_error=custom_id in _NAMES[:2])
            assert (ledger.num_completed, ledger.num_failed) == (4, 2)
        assert _ids(folder) == dict.fromkeys(_NAMES, 1)
