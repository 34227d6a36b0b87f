"""The weights cache: models fetched from the hub, and GGUF files unpacked, shared by all processes of one home.

    blobs/<sha256>                  files by content (see blobs.py)
    partial/<digest>                files that are arriving
    hub/<org>--<name>/<commit>/     models, hard links to blobs (see snapshot.py)
    <sha256>/                       unpacked GGUF files, by the digest of what they were made from
    digests.json                    SHA-256 of local GGUF files by path, size and time

Everything is written beside its place and renamed into it, so a process killed at any moment leaves either nothing,
or the whole, or something that `repair` knows and the next download goes on from.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from engine.clock import Clock, SystemClock
from engine.errors import WeightsError
from engine.weights.atomic import sync_folder, write_atomically
from engine.weights.blobs import BlobStore
from engine.weights.eviction import Candidate, plan_eviction
from engine.weights.files import FileEntry, read_json, write_record
from engine.weights.integrity import sha256_of
from engine.weights.inventory import CacheEntry, EntryKind, conversion_record, read_entries
from engine.weights.lease import PATIENCE_S, seized, wait_for_lock
from engine.weights.snapshot import SnapshotStore
from engine.weights.transfer import describe_size

LEFTOVER_PREFIX = ".incomplete-"
TRASH_PREFIX = ".trash-"


class WeightsCache:
    """The cache under `root`, of at most `max_bytes` where that is given (files in use stay even so).

    What the hub says of a branch is believed for `metadata_ttl_s`.
    """

    def __init__(
        self, root: Path, max_bytes: int | None = None, metadata_ttl_s: float = 600.0, clock: Clock | None = None
    ) -> None:
        self.root = root
        self.max_bytes = max_bytes
        self.metadata_ttl_s = metadata_ttl_s
        self.clock: Clock = clock or SystemClock()
        self.blobs = BlobStore(root)
        self.snapshots = SnapshotStore(root)

    def folder_for(
        self,
        file: Path,
        convert: Callable[[Path], None],
        *,
        sha256: str | None = None,
        on_wait: Callable[[], None] | None = None,
    ) -> Path:
        """The converted folder of `file`; `convert(folder)` fills it the first time.

        `sha256` is the file's, where it is known already; `on_wait` is called while another conversion runs.

        Raises:
            WeightsError: the cache cannot be written (full, or not permitted).
        """
        with self.writing():
            self.root.mkdir(parents=True, exist_ok=True)
            target = self.root / (sha256 or self.digest_of(file))
            if not target.is_dir():
                self._fill(target, file, convert, on_wait)
        return target

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Make one sentence of what goes wrong with the disk."""
        try:
            yield
        except OSError as error:
            remedy = "free space there or set CONSOLE_HOME to another folder"
            if error.errno in (errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK) and error.filename2 is not None:
                remedy = "its file system has no hard links: set CONSOLE_HOME to a folder on one that does"
            raise WeightsError(
                f"cannot write the weights cache {self.root}: {error.strerror or error}; {remedy}"
            ) from error

    def entries(self) -> tuple[CacheEntry, ...]:
        """What is there, the last used first."""
        return read_entries(self.root)

    def remove(self, entry_id: str) -> int:
        """Remove the entry of that id; the bytes that this freed.

        Raises:
            WeightsError: there is no such entry, or it is in use.
        """
        entry = next((entry for entry in self.entries() if entry.id == entry_id), None)
        if entry is None:
            raise WeightsError(f"the weights cache {self.root} has no entry {entry_id!r}: list it to see the names")
        with self.writing():
            if not self.remove_entry(entry, PATIENCE_S):
                raise WeightsError(f"{entry_id} is in use: unload the model that was loaded from it first")
            own_bytes = 0 if self.snapshots.holds(entry.path) else entry.size_bytes
            return own_bytes + self.blobs.sweep()

    def remove_entry(self, entry: CacheEntry, patience_s: float = 0.0) -> bool:
        """Take the entry away, unless it is in use for longer than that. Blobs stay until they are swept."""
        with seized(entry.path, patience_s) as is_free:
            if is_free:
                if entry.record is not None:
                    entry.record.unlink(missing_ok=True)
                self.discard_path(entry.path)
        return is_free

    def make_room(self, need_bytes: int, what: str) -> None:
        """Evict until `need_bytes` more are within the bound, and make sure that the disk has them.

        Raises:
            WeightsError: the bound or the disk is too small.
        """
        if self.max_bytes is not None:
            over_bytes = self._evict(need_bytes, self.max_bytes)
            if over_bytes > 0:
                raise WeightsError(
                    f"{what} needs {describe_size(need_bytes)} and the weights cache may hold "
                    f"{describe_size(self.max_bytes)}: {describe_size(over_bytes)} are missing with everything gone "
                    "that is not in use; raise CONSOLE_WEIGHTS_MAX_GIB, or unload models"
                )
        free_bytes = self.free_bytes()
        if free_bytes < need_bytes:
            raise WeightsError(
                f"{what} needs {describe_size(need_bytes)} and {self.root} has {describe_size(free_bytes)} free: "
                f"{describe_size(need_bytes - free_bytes)} are missing; free space there or set CONSOLE_HOME to "
                "another folder"
            )

    def free_bytes(self) -> int:
        """What the disk of the cache has room for, whether the cache is made yet or not."""
        return shutil.disk_usage(next(folder for folder in (self.root, *self.root.parents) if folder.exists())).free

    def keep_bound(self) -> None:
        """Evict what is over the bound now, as far as that is not in use."""
        if self.max_bytes is not None:
            self._evict(0, self.max_bytes)

    def _evict(self, need_bytes: int, max_bytes: int) -> int:
        self.blobs.sweep()
        entries = {entry.id: entry for entry in self.entries()}
        candidates = [
            Candidate(entry.id, entry.last_used_s, entry.is_in_use, entry.files)
            for entry in entries.values()
            if entry.kind is not EntryKind.UNFINISHED
        ]
        sizes = {inode: size for entry in entries.values() for inode, size in entry.files.items()}
        known = {inode for candidate in candidates for inode in candidate.files}
        other_bytes = sum(size for inode, size in sizes.items() if inode not in known)
        plan = plan_eviction(candidates, other_bytes, need_bytes, max_bytes)
        if plan.over_bytes == 0 or need_bytes == 0:
            for entry_id in plan.remove:
                self.remove_entry(entries[entry_id])
            self.blobs.sweep()
        return plan.over_bytes

    def discard_path(self, path: Path) -> None:
        """Rename first: a removal that is cut short leaves nothing that looks like a model."""
        trash = Path(tempfile.mkdtemp(prefix=TRASH_PREFIX, dir=self.root))
        path.rename(trash / path.name)
        shutil.rmtree(trash)

    def _fill(
        self, target: Path, file: Path, convert: Callable[[Path], None], on_wait: Callable[[], None] | None
    ) -> None:
        with self.conversion_turn(on_wait):
            self.remove_leftovers()
            if target.is_dir():
                return
            work = Path(tempfile.mkdtemp(prefix=LEFTOVER_PREFIX, dir=self.root))
            try:
                convert(work)
                write_record(conversion_record(target), file.stem, _sync_and_digest(work))
                work.rename(target)
                sync_folder(self.root)
            finally:
                shutil.rmtree(work, ignore_errors=True)

    def remove_leftovers(self) -> list[Path]:
        """Remove what conversions left that did not end. Only for who has the turn."""
        leftovers = list(self.root.glob(f"{LEFTOVER_PREFIX}*"))
        for leftover in leftovers:
            shutil.rmtree(leftover)
        return leftovers

    @contextmanager
    def conversion_turn(self, on_wait: Callable[[], None] | None) -> Iterator[None]:
        """One conversion at a time over all processes, so what another one left unfinished is nobody's. The system
        takes the lock away from a process that is killed; a process id would say nothing across containers."""
        with (self.root / ".lock").open("w") as lock:
            if on_wait is None:
                fcntl.flock(lock, fcntl.LOCK_EX)
            else:
                wait_for_lock(lock.fileno(), Path(lock.name), on_wait)
            yield

    def digest_of(self, file: Path) -> str:
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
            write_atomically(index, json.dumps(known, indent=1).encode())
        return digest


def _read_index(index: Path) -> dict[str, str]:
    known = read_json(index)
    return known if isinstance(known, dict) else {}


def _sync_and_digest(folder: Path) -> list[FileEntry]:
    entries = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        with path.open("rb") as stream:
            os.fsync(stream.fileno())
        entries.append(FileEntry(str(path.relative_to(folder)), path.stat().st_size, sha256_of(path)))
    return entries
