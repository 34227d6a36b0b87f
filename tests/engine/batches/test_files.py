"""How many files there may be, and how long, with a clock that the tests move."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.batches import Batches
from engine.batches import files as bounds
from engine.batches.errors import FileTooLargeError, FileUnknownError
from engine.state.database import open_database, sqlite_url
from tests.fakes import FakeClock

_DAY_S = 86_400.0
_URL = "/v1/chat/completions"


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def batches(tmp_path: Path, clock: FakeClock) -> Iterator[Batches]:
    """Where nobody answers rows, so that what is begun stays open."""
    with open_database(sqlite_url(tmp_path / "state.sqlite")) as database:
        one = Batches(tmp_path, database, 16, clock, 2 * _DAY_S)
        yield one
        one.close()


def _upload(batches: Batches, key_id: str | None, content: bytes = b"{}\n") -> str:
    upload = batches.open_upload(key_id)
    upload.write_bytes(content)
    try:
        return batches.files.keep(upload, "rows.jsonl", "batch", key_id).id
    finally:
        upload.unlink(missing_ok=True)


def test_a_key_that_has_its_share_leaves_room_for_others(batches: Batches, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "MAX_KEY_FILES", 2)
    first = _upload(batches, "key-1")
    _upload(batches, "key-1")
    with pytest.raises(FileTooLargeError, match=r"there are 2 files of 6 bytes of this key, and 2 of .* are the most"):
        _upload(batches, "key-1")
    assert _upload(batches, "key-2")
    assert _upload(batches, None)
    batches.delete_file(first, "key-1")
    assert _upload(batches, "key-1")


def test_the_bytes_of_a_key_are_counted_when_they_are_there(batches: Batches, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "MAX_KEY_BYTES", 10)
    _upload(batches, "key-1", b"x" * 6)
    with pytest.raises(FileTooLargeError, match="of this key"):
        _upload(batches, "key-1", b"x" * 5)
    assert _upload(batches, "key-1", b"x" * 4)
    assert len(list((batches.files.path("x").parent).iterdir())) == 2


def test_files_go_when_their_time_is_over(batches: Batches, clock: FakeClock) -> None:
    old = _upload(batches, "key-1")
    clock.advance(_DAY_S)
    young = _upload(batches, "key-2")
    found = batches.files.get(old, "key-1")
    assert batches.files.expires_at_s(found) == found.created_at_s + 2 * _DAY_S
    clock.advance(1.5 * _DAY_S)
    batches.remove_expired()
    with pytest.raises(FileUnknownError):
        batches.files.get(old, "key-1")
    assert not batches.files.path(old).exists()
    assert batches.files.get(young, "key-2")


def test_what_an_open_batch_reads_stays(batches: Batches, clock: FakeClock) -> None:
    read = _upload(batches, "key-1")
    batches.create("key-1", read, _URL)
    clock.advance(3 * _DAY_S)
    _upload(batches, "key-2")
    assert batches.files.get(read, "key-1")
