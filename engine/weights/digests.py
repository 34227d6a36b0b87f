"""SHA-256 of many files: in parallel, with progress by bytes, cancellable, and remembered.

hashlib releases the interpreter's lock while it hashes, so threads share the work; one file is one thread's, because
SHA-256 cannot be cut into parts.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

from engine.errors import WeightsError
from engine.weights.atomic import write_text
from engine.weights.strict_json import parse_json

Progress = Callable[[str, float | None], None]

_BLOCK_BYTES = 1 << 20
_MAX_THREADS = 8
_REPORT_S = 0.1
_MAX_REMEMBERED = 50_000
_MAX_MEMO_BYTES = 64 << 20
# A file written a moment ago may be written again within one tick of the file system's clock, which its time would
# not show.
_FRESH_S = 2.0


@dataclass(frozen=True, slots=True)
class FileState:
    """What tells, without reading it, that a file is still the one that was hashed. A program that wants to deceive
    can keep all three."""

    size_bytes: int
    mtime_ns: int
    inode: int


class DigestMemo:
    """Digests by path and `FileState`, kept in one file. Every method may be called from any thread.

    A memo that cannot be read or written only costs the time of hashing again.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._lock = threading.Lock()

    def known(self, files: Sequence[Path]) -> dict[Path, str]:
        """The digests of those files that are as they were when they were hashed."""
        entries = self._read()
        found = {file: entries.get(str(file)) for file in files}
        return {file: str(entry[3]) for file, entry in found.items() if entry and entry[:3] == _key(file)}

    def remember(self, hashed: dict[Path, tuple[FileState, str]]) -> None:
        """Keep digests; those of files written a moment ago are not kept."""
        newest_ns = time.time_ns() - int(_FRESH_S * 1e9)
        fresh = {
            str(file): [state.size_bytes, state.mtime_ns, state.inode, digest]
            for file, (state, digest) in hashed.items()
            if state.mtime_ns < newest_ns
        }
        with self._lock:
            entries = {**{path: entry for path, entry in self._read().items() if path not in fresh}, **fresh}
            kept = dict(list(entries.items())[-_MAX_REMEMBERED:])
            write_text(self._file, json.dumps(kept))

    def _read(self) -> dict[str, list[object]]:
        try:
            if self._file.stat().st_size > _MAX_MEMO_BYTES:
                return {}
            entries = parse_json(self._file.read_bytes())
        except (OSError, ValueError):
            return {}
        if not isinstance(entries, dict):
            return {}
        return {path: entry for path, entry in entries.items() if _is_entry(entry)}


def read_state(file: Path) -> FileState:
    """The file's state now.

    Raises:
        OSError: it cannot be looked at.
    """
    return _state_of(file.stat())


def hash_files(
    files: Sequence[Path], on_progress: Progress, stage: str, num_threads: int | None = None
) -> dict[Path, tuple[FileState, str]]:
    """State and SHA-256 (hex) of every file; `on_progress(stage, fraction of bytes)` ten times a second.

    What `on_progress` raises ends the work within a block of each thread and passes on.

    Raises:
        WeightsError: a file cannot be read, is no plain file, or changed while it was read.
    """
    sizes = {file: _size_of(file) for file in files}
    largest_first = sorted(sizes, key=lambda file: -sizes[file])
    progress = _ByteCount(sum(sizes.values()))
    on_progress(stage, 0.0)
    threads = num_threads or min(_MAX_THREADS, os.cpu_count() or 1)
    pool = ThreadPoolExecutor(threads, thread_name_prefix="hash")
    try:
        jobs = {file: pool.submit(_hash_file, file, progress) for file in largest_first}
        _follow(list(jobs.values()), lambda: on_progress(stage, progress.fraction))
        return {file: jobs[file].result() for file in files}
    finally:
        progress.is_stopped = True
        pool.shutdown(wait=True, cancel_futures=True)


class _ByteCount:
    def __init__(self, total_bytes: int) -> None:
        self._total_bytes = total_bytes
        self._done_bytes = 0
        self._lock = threading.Lock()
        self.is_stopped = False

    @property
    def fraction(self) -> float:
        return min(1.0, self._done_bytes / self._total_bytes) if self._total_bytes else 1.0

    def add(self, num_bytes: int) -> None:
        with self._lock:
            self._done_bytes += num_bytes


class _StoppedError(Exception):
    """Hashing was given up; nobody waits for the result."""


def _follow(jobs: list[Future[tuple[FileState, str]]], report: Callable[[], None]) -> None:
    waiting = set(jobs)
    while waiting:
        done, waiting = wait(waiting, _REPORT_S, FIRST_EXCEPTION)
        for job in done:
            job.result()
        report()


def _hash_file(file: Path, progress: _ByteCount) -> tuple[FileState, str]:
    try:
        with file.open("rb", buffering=0) as stream:
            before = os.fstat(stream.fileno())
            digest = _digest_of(stream, before.st_size, progress)
            after = os.fstat(stream.fileno())
    except OSError as error:
        raise WeightsError(f"{file} cannot be read: {error.strerror or error}; fetch it again") from error
    if digest is None or _state_of(before) != _state_of(after):
        raise WeightsError(f"{file} changed while it was read: try again once nothing writes to it")
    return _state_of(before), digest


def _digest_of(stream: object, size: int, progress: _ByteCount) -> str | None:
    """None when there is not exactly `size` to read: another program writes to it."""
    digest, block, num_read = hashlib.sha256(), bytearray(_BLOCK_BYTES), 0
    view = memoryview(block)
    while num_read <= size and (count := stream.readinto(block)):  # type: ignore[attr-defined]
        if progress.is_stopped:
            raise _StoppedError
        digest.update(view[:count])
        num_read += count
        progress.add(count)
    return digest.hexdigest() if num_read == size else None


def _size_of(file: Path) -> int:
    try:
        found = file.stat()
    except OSError as error:
        raise WeightsError(f"{file} cannot be read: {error.strerror or error}; fetch it again") from error
    if not stat.S_ISREG(found.st_mode):
        raise WeightsError(f"{file} is not a plain file: a model holds only files and folders, take it away")
    return found.st_size


def _state_of(found: os.stat_result) -> FileState:
    return FileState(found.st_size, found.st_mtime_ns, found.st_ino)


def _is_entry(entry: object) -> bool:
    return isinstance(entry, list) and len(entry) == 4 and isinstance(entry[3], str) and len(entry[3]) == 64


def _key(file: Path) -> list[object] | None:
    try:
        state = read_state(file)
    except OSError:
        return None
    return [state.size_bytes, state.mtime_ns, state.inode]
