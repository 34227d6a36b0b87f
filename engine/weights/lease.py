"""Locks that the system takes away from a process that is killed.

A lease is a shared flock(2) on the folder itself, so it needs no file of its own and works on a read-only disk. Who
removes a folder takes the exclusive lock first. A lock says nothing of a folder that was renamed or removed while one
waited, so every lock is checked against the name again.
"""

from __future__ import annotations

import fcntl
import os
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_POLL_S = 0.1
# How long whoever asks for a removal waits for a lock that may be gone in a moment.
PATIENCE_S = 0.5


class Lease:
    """Keeps a folder from being evicted until it is closed, collected, or its process ends."""

    def __init__(self, handle: int | None = None) -> None:
        self._close = None if handle is None else weakref.finalize(self, os.close, handle)

    @property
    def is_held(self) -> bool:
        """Is a folder kept; never so for files outside the cache."""
        return self._close is not None and self._close.alive

    def close(self) -> None:
        """Let the folder go; twice does nothing."""
        if self._close is not None:
            self._close()

    def __enter__(self) -> Lease:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def lease_folder(folder: Path) -> Lease | None:
    """Hold `folder` and note its use; None where it is not there, or goes while one waits for it."""
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except (FileNotFoundError, NotADirectoryError):
        return None
    lease = Lease(handle)
    fcntl.flock(handle, fcntl.LOCK_SH)
    if not is_same(handle, folder):
        lease.close()
        return None
    with suppress(OSError):  # a read-only cache still serves; it only does not learn what is used
        os.utime(folder)
    return lease


def is_same(handle: int, path: Path) -> bool:
    """Does the name still stand for what the handle is open on."""
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except (FileNotFoundError, NotADirectoryError):
        return False


def wait_for_lock(handle: int, path: Path, on_wait: Callable[[], None]) -> bool:
    """Take the exclusive lock of what stands at `path`; False when the handle is open on something else by then, which
    may be a model in use, whose lease would never be given up. `on_wait` is called ten times a second and may raise."""
    while not try_lock(handle):
        if not is_same(handle, path):
            return False
        on_wait()
        time.sleep(_POLL_S)
    return is_same(handle, path)


def try_lock(handle: int) -> bool:
    """Take the exclusive lock if nobody has one."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def seized(path: Path, patience_s: float = 0.0) -> Iterator[bool]:
    """Whether nobody uses `path` (a file or folder), now or within `patience_s`; if so nobody can until the end of the
    block. A lock can outlive its lease for a moment, in a child process that has not begun its program yet."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        yield False
        return
    try:
        until_s = time.monotonic() + patience_s
        while not (is_locked := try_lock(handle)) and time.monotonic() < until_s:
            time.sleep(_POLL_S)
        yield is_locked and is_same(handle, path)
    finally:
        os.close(handle)
