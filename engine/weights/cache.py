"""The weights cache: what had to be converted, kept under the digest of what it was made from.

A conversion is written beside its place and renamed into it, so a process killed at any moment leaves either
nothing or the whole.
"""

from __future__ import annotations

import fcntl
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
        with self._turn():
            for leftover in self.root.glob(f"{_LEFTOVER_PREFIX}*"):
                shutil.rmtree(leftover)
            if target.is_dir():
                return
            work = Path(tempfile.mkdtemp(prefix=_LEFTOVER_PREFIX, dir=self.root))
            try:
                convert(work)
                work.rename(target)
            finally:
                shutil.rmtree(work, ignore_errors=True)

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """One conversion at a time over all processes, so what another one left unfinished is nobody's. The system
        takes the lock away from a process that is killed; a process id would say nothing across containers."""
        with (self.root / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _digest(self, file: Path) -> str:
        """SHA-256 of the file, remembered by path, size and modification time: hashing takes seconds a gigabyte."""
        try:
            stat = file.stat()
            key = f"{file.resolve()}|{stat.st_size}|{stat.st_mtime_ns}"
            index = self.root / "digests.json"
            known = _read_index(index)
            digest = known.get(key) or sha256_of(file)
        except OSError as error:
            raise WeightsError(f"{file} cannot be read: {error.strerror or error}") from error
        if key not in known:
            known[key] = digest
            with tempfile.NamedTemporaryFile("w", dir=self.root, prefix=".digests-", delete=False) as stream:
                json.dump(known, stream, indent=1)
            Path(stream.name).replace(index)
        return digest


def _read_index(index: Path) -> dict[str, str]:
    try:
        known = json.loads(index.read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}
