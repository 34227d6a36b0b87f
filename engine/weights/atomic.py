"""Writing a small file so that whoever reads it, at any moment and after a crash, finds the old one or the new one."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from pathlib import Path

from engine.errors import WeightsError

TEMPORARY_PREFIX = ".tmp-"
_LEFTOVER_S = 3600.0


def write_atomically(file: Path, content: bytes, mode: int = 0o600) -> None:
    """Put `content` at `file`, whose folder is there, in one step that survives a kill and a power cut.

    Raises:
        OSError: it cannot be written; what was there is as it was.
    """
    handle, name = tempfile.mkstemp(prefix=TEMPORARY_PREFIX, dir=file.parent)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fchmod(stream.fileno(), mode)
            os.fsync(stream.fileno())
        os.replace(name, file)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    sync_folder(file.parent)


def sync_folder(folder: Path) -> None:
    """Have the names in `folder` survive a power cut."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_text(file: Path, text: str, mode: int = 0o600) -> None:
    """Write `text` over `file`, making its folder. What killed writers left there an hour ago goes.

    Raises:
        WeightsError: the folder cannot be written.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(file.parent)
        write_atomically(file, text.encode(), mode)
    except OSError as error:
        raise WeightsError(
            f"cannot write {file}: {error.strerror or error}; free space there, or see that you may write it"
        ) from error


def _remove_leftovers(folder: Path) -> None:
    oldest_s = time.time() - _LEFTOVER_S
    for leftover in folder.glob(f"{TEMPORARY_PREFIX}*"):
        with contextlib.suppress(FileNotFoundError):
            if leftover.stat().st_mtime < oldest_s:
                leftover.unlink()
