from __future__ import annotations

import hashlib
import os
import threading
from pathlib import Path

import pytest

from engine.errors import WeightsError
from engine.weights.digests import DigestMemo, hash_files, read_state
from tests.engine.weights.models import age, quiet


class StopError(Exception):
    """What a caller raises to end the work."""


def write(file: Path, content: bytes) -> Path:
    file.write_bytes(content)
    age(file)
    return file


@pytest.mark.parametrize("num_threads", [None, 1, 4])
def test_digests_are_those_of_hashlib(tmp_path: Path, num_threads: int | None) -> None:
    files = [write(tmp_path / f"{size}", os.urandom(size)) for size in (0, 1, 1 << 20, (1 << 20) + 1, 3_000_000)]
    hashed = hash_files(files, quiet, "checking", num_threads)
    assert {file: digest for file, (_, digest) in hashed.items()} == {
        file: hashlib.sha256(file.read_bytes()).hexdigest() for file in files
    }
    assert all(state == read_state(file) for file, (state, _) in hashed.items())


def test_progress_goes_by_bytes_from_none_to_all(tmp_path: Path) -> None:
    reports: list[tuple[str, float | None]] = []
    files = [write(tmp_path / "a", bytes(30 << 20)), write(tmp_path / "b", bytes(1000))]
    hash_files(files, lambda stage, fraction: reports.append((stage, fraction)), "checking")
    fractions = [fraction for _, fraction in reports if fraction is not None]
    assert len(fractions) == len(reports)
    assert fractions == sorted(fractions)
    assert (fractions[0], fractions[-1]) == (0.0, 1.0)
    assert {stage for stage, _ in reports} == {"checking"}


def test_nothing_to_hash_is_done(tmp_path: Path) -> None:
    assert hash_files([], quiet, "checking") == {}


def test_what_progress_raises_ends_it_and_its_threads(tmp_path: Path) -> None:
    file = tmp_path / "large"
    with file.open("wb") as stream:
        stream.truncate(8 << 30)  # sparse: seconds of hashing

    def stop(_stage: str, fraction: float | None) -> None:
        if fraction:
            raise StopError

    with pytest.raises(StopError):
        hash_files([file], stop, "checking")
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("hash")]


def test_a_file_that_is_gone_or_no_file(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="gone cannot be read: No such file"):
        hash_files([tmp_path / "gone"], quiet, "checking")
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path):
        with pytest.raises(WeightsError, match="is not a plain file"):
            hash_files([path], quiet, "checking")


def test_a_file_that_is_written_meanwhile(tmp_path: Path) -> None:
    file = write(tmp_path / "f", bytes(200 << 20))

    def append(_stage: str, fraction: float | None) -> None:
        with file.open("ab") as stream:
            stream.write(b"x")

    with pytest.raises(WeightsError, match="f changed while it was read: try again"):
        hash_files([file], append, "checking")


def test_what_is_remembered_goes_with_a_touch(tmp_path: Path) -> None:
    file, memo = write(tmp_path / "f", b"abc"), DigestMemo(tmp_path / "store" / "memo.json")
    assert memo.known([file]) == {}
    memo.remember(hash_files([file], quiet, "checking"))
    assert memo.known([file]) == {file: hashlib.sha256(b"abc").hexdigest()}
    assert DigestMemo(tmp_path / "store" / "memo.json").known([file, tmp_path / "gone"]).keys() == {file}
    os.utime(file)
    assert memo.known([file]) == {}


def test_another_file_under_the_name_is_not_known(tmp_path: Path) -> None:
    file, memo = write(tmp_path / "f", b"abc"), DigestMemo(tmp_path / "memo.json")
    memo.remember(hash_files([file], quiet, "checking"))
    stat = file.stat()
    other = write(tmp_path / "g", b"xyz")
    os.utime(other, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    other.replace(file)
    assert memo.known([file]) == {}


def test_a_file_just_written_is_not_remembered(tmp_path: Path) -> None:
    file, memo = tmp_path / "f", DigestMemo(tmp_path / "memo.json")
    file.write_bytes(b"abc")
    memo.remember(hash_files([file], quiet, "checking"))
    assert memo.known([file]) == {}


@pytest.mark.parametrize("raw", [b"", b"[]", b"{", b"\xff", b'{"/f": 3}', b'{"/f": [1, 2, 3, 4]}', b"[" * 100_000])
def test_a_memo_that_cannot_be_read_knows_nothing_and_is_replaced(tmp_path: Path, raw: bytes) -> None:
    file, memo = write(tmp_path / "f", b"abc"), DigestMemo(tmp_path / "memo.json")
    (tmp_path / "memo.json").write_bytes(raw.replace(b"/f", str(file).encode()))
    assert memo.known([file]) == {}
    memo.remember(hash_files([file], quiet, "checking"))
    assert list(memo.known([file])) == [file]
