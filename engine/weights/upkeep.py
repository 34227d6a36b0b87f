"""Keeping the cache whole: what a kill leaves is cleared away, and what rots on the disk is found."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from engine.errors import WeightsError
from engine.weights.atomic import TEMPORARY_PREFIX
from engine.weights.cache import LEFTOVER_PREFIX, TRASH_PREFIX, WeightsCache
from engine.weights.files import FileEntry, read_record
from engine.weights.integrity import check_safetensors
from engine.weights.inventory import CacheEntry, EntryKind
from engine.weights.lease import PATIENCE_S, seized
from engine.weights.snapshot import Snapshot

Progress = Callable[[str, float | None], None]
_CHUNK_BYTES = 4 << 20
_KEEP_UNFINISHED_S = 7 * 86_400.0
_TEMPORARY_S = 3600.0  # a write of a small file takes milliseconds


@dataclass(frozen=True, slots=True)
class Damage:
    """A file of the cache that is not what it should be, in the words for a person."""

    entry_id: str
    folder: Path
    path: str
    reason: str


def repair(cache: WeightsCache, keep_unfinished_s: float = _KEEP_UNFINISHED_S) -> tuple[str, ...]:
    """Clear away what kills and power cuts left; a line for each thing done. Takes milliseconds, hashes nothing.

    Downloads that were cut short stay for `keep_unfinished_s`, to be gone on with. Nothing that another process works
    on is touched. A cache that cannot be written is left as it is.
    """
    if not cache.root.is_dir() or not os.access(cache.root, os.W_OK):
        return ()
    with cache.writing():
        done = [
            *_clear_conversions(cache),
            *_clear_trash(cache),
            *_reopen_broken(cache),
            *_clear_unfinished(cache, cache.clock.wall() - keep_unfinished_s),
            *_clear_records(cache),
        ]
        cache.snapshots.clear_heads(cache.clock.wall() - cache.metadata_ttl_s)
        freed_bytes = cache.blobs.sweep()
    return (*done, f"removed {freed_bytes:,} bytes that no model holds") if freed_bytes else tuple(done)


def verify(cache: WeightsCache, on_progress: Progress) -> tuple[Damage, ...]:
    """Read everything in the cache once and compare it with its digests; what is damaged.

    GGUF files that were unpacked before digests were kept are checked by their headers alone.
    """
    entries = [entry for entry in cache.entries() if entry.kind is not EntryKind.UNFINISHED]
    sizes = {inode: size for entry in entries for inode, size in entry.files.items()}
    reader = _Reader(sum(sizes.values()), on_progress)
    return tuple(damage for entry in entries for damage in _verify_entry(entry, reader))


def discard(cache: WeightsCache, folder: Path, path: str) -> None:
    """Take one damaged file out of the cache, so that the next `acquire` fetches it, and it alone, again. Of an
    unpacked GGUF file the whole goes, to be unpacked again. Close your own lease before.

    Raises:
        WeightsError: the folder is not one of the cache's, or it is in use.
    """
    entry = next((entry for entry in cache.entries() if entry.path == folder), None)
    if entry is None:
        raise WeightsError(f"{folder} is not in the weights cache {cache.root}: put its {path} right yourself")
    with cache.writing():
        is_done = (
            _reopen(cache, entry, path) if entry.kind is EntryKind.DOWNLOAD else cache.remove_entry(entry, PATIENCE_S)
        )
    if not is_done:
        raise WeightsError(f"{entry.id} is in use: unload the model that was loaded from it, then fetch {path} again")


def _clear_conversions(cache: WeightsCache) -> Iterator[str]:
    with seized(cache.root / ".lock") as is_free:
        if is_free:
            for leftover in cache.remove_leftovers():
                yield f"removed the unfinished conversion {leftover.name.removeprefix(LEFTOVER_PREFIX)}"


def _clear_trash(cache: WeightsCache) -> Iterator[str]:
    for trash in cache.root.glob(f"{TRASH_PREFIX}*"):
        shutil.rmtree(trash, ignore_errors=True)
        yield "went on with a removal that was cut short"
    limit_s = cache.clock.wall() - _TEMPORARY_S
    for file in [*cache.root.rglob(f"{TEMPORARY_PREFIX}*"), *cache.root.glob(".digests-*")]:
        with suppress(FileNotFoundError):
            if file.stat().st_mtime < limit_s:
                file.unlink()
                yield f"removed {file.name}"


def _clear_unfinished(cache: WeightsCache, limit_s: float) -> Iterator[str]:
    for entry in cache.entries():
        if entry.kind is EntryKind.UNFINISHED and entry.last_used_s < limit_s and cache.remove_entry(entry):
            yield f"removed {entry.id}, given up long ago"
    for etag in cache.blobs.partials.glob("*.etag"):
        if not etag.with_suffix("").exists():
            etag.unlink(missing_ok=True)


def _reopen_broken(cache: WeightsCache) -> Iterator[str]:
    """A folder that lacks a file that it should hold goes back to those that are arriving."""
    for entry in cache.entries():
        if entry.kind is not EntryKind.DOWNLOAD:
            continue
        missing = _missing(entry)
        if missing is not None and _reopen(cache, entry, missing):
            yield f"{entry.id} lacks {missing}: it is fetched when the model is next asked for"


def _missing(entry: CacheEntry) -> str | None:
    known = None if entry.record is None else read_record(entry.record)
    if known is None:
        return "its list of files"
    for item in known[1]:
        file = entry.path / item.path
        if not file.is_file() or file.stat().st_size != item.size_bytes:
            return item.path
    return None


def _reopen(cache: WeightsCache, entry: CacheEntry, path: str) -> bool:
    snapshot = next(found for found, _ in cache.snapshots.scan() if str(found) == entry.id)
    with seized(entry.path, PATIENCE_S) as is_free:
        if not is_free:
            return False
        incoming = cache.snapshots.incoming(snapshot)
        if incoming.exists():
            cache.discard_path(incoming)
        _drop_blob(cache, snapshot, entry.path, path)
        cache.snapshots.record(snapshot).unlink(missing_ok=True)
        entry.path.rename(incoming)
    return True


def _drop_blob(cache: WeightsCache, snapshot: Snapshot, folder: Path, path: str) -> None:
    """The blob goes too, or the damaged content would be linked again."""
    known = read_record(cache.snapshots.record(snapshot))
    for item in known[1] if known else ():
        if item.path == path and item.sha256 is not None:
            (cache.blobs.blobs / item.sha256).unlink(missing_ok=True)
    (folder / path).unlink(missing_ok=True)


def _clear_records(cache: WeightsCache) -> Iterator[str]:
    """Records whose folder never took its name."""
    for snapshot, record in cache.snapshots.records():
        incoming = cache.snapshots.incoming(snapshot)
        if not cache.snapshots.folder(snapshot).exists() and not incoming.exists():
            record.unlink(missing_ok=True)
            yield f"removed the record of {snapshot}, which is not there"


class _Reader:
    """Hashes files, one that is linked twice once, and reports how far it is."""

    def __init__(self, total_bytes: int, on_progress: Progress) -> None:
        self._total_bytes = total_bytes
        self._read_bytes = 0
        self._on_progress = on_progress
        self._known: dict[int, str] = {}

    def sha256(self, file: Path) -> str:
        inode = file.stat().st_ino
        if inode not in self._known:
            digest = hashlib.sha256()
            with file.open("rb", buffering=0) as stream:
                while chunk := stream.read(_CHUNK_BYTES):
                    digest.update(chunk)
                    self._read_bytes += len(chunk)
                    self._on_progress("verifying", min(1.0, self._read_bytes / max(1, self._total_bytes)))
            self._known[inode] = digest.hexdigest()
        return self._known[inode]


def _verify_entry(entry: CacheEntry, reader: _Reader) -> Iterator[Damage]:
    known = None if entry.record is None else read_record(entry.record)
    if known is None:
        yield from _verify_headers(entry)
        return
    for item in known[1]:
        reason = _judge_file(entry.path / item.path, item, reader)
        if reason is not None:
            yield Damage(entry.id, entry.path, item.path, reason)


def _judge_file(file: Path, item: FileEntry, reader: _Reader) -> str | None:
    try:
        size_bytes = file.stat().st_size
        if size_bytes != item.size_bytes:
            return f"{size_bytes:,} bytes instead of {item.size_bytes:,}"
        if item.sha256 is not None and reader.sha256(file) != item.sha256:
            return "its content changed: the SHA-256 is another one"
    except OSError as error:
        return f"cannot be read: {error.strerror or error}"
    return None


def _verify_headers(entry: CacheEntry) -> Iterator[Damage]:
    for file in sorted(entry.path.glob("*.safetensors")):
        try:
            check_safetensors(file)
        except WeightsError as error:
            yield Damage(entry.id, entry.path, file.name, str(error))
