"""The weights cache: what had to be converted, kept under the digest of what it was made from.

A conversion is written beside its place and renamed into it, so a process killed at any moment leaves either
nothing or the whole.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from engine.errors import WeightsError
from engine.weights.integrity import sha256_of

_LEFTOVER_PREFIX = ".incomplete-"


class WeightsCache:
    """Folders of safetensors under `root`, each named by the SHA-256 of its source."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def folder_for(self, file: Path, convert: Callable[[Path], None]) -> Path:
        """The converted folder of `file`; `convert(folder)` fills it the first time.

        Raises:
            WeightsError: the cache cannot be written (full, or not permitted).
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            self._remove_leftovers()
            target = self.root / self._digest(file)
            if not target.is_dir():
                self._fill(target, convert)
        except OSError as error:
            raise WeightsError(
                f"cannot write the weights cache {self.root}: {error.strerror or error}; free space there or set "
                "CONSOLE_HOME to another folder"
            ) from error
        return target

    def _fill(self, target: Path, convert: Callable[[Path], None]) -> None:
        work = Path(tempfile.mkdtemp(prefix=_LEFTOVER_PREFIX, dir=self.root))
        (work / ".owner").write_text(str(os.getpid()))
        try:
            convert(work)
            (work / ".owner").unlink()
            work.rename(target)
        finally:
            shutil.rmtree(work, ignore_errors=True)

    def _remove_leftovers(self) -> None:
        """Drop conversions whose process is gone."""
        for folder in self.root.glob(f"{_LEFTOVER_PREFIX}*"):
            owner = folder / ".owner"
            if owner.is_file() and not _is_alive(int(owner.read_text() or 0)):
                shutil.rmtree(folder)

    def _digest(self, file: Path) -> str:
        """SHA-256 of the file, remembered by path, size and modification time: hashing takes seconds a gigabyte."""
        stat = file.stat()
        key = f"{file.resolve()}|{stat.st_size}|{stat.st_mtime_ns}"
        index = self.root / "digests.json"
        try:
            known = json.loads(index.read_text())
        except (FileNotFoundError, ValueError):
            known = {}
        if key not in known:
            known[key] = sha256_of(file)
            temporary = index.with_suffix(f".{os.getpid()}")
            temporary.write_text(json.dumps(known, indent=1))
            temporary.replace(index)
        return str(known[key])


def _is_alive(pid: int) -> bool:
    if pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
