"""What lies in the cache, read from the disk each time: folders are the only truth."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from engine.weights.blobs import BlobStore
from engine.weights.files import read_record
from engine.weights.lease import seized
from engine.weights.snapshot import SnapshotStore

_SHA256 = re.compile(r"[0-9a-f]{64}")


class EntryKind(StrEnum):
    """A model from the hub, a GGUF file unpacked, or what is still arriving (or was given up)."""

    DOWNLOAD = "download"
    CONVERSION = "conversion"
    UNFINISHED = "unfinished"


@dataclass(frozen=True, slots=True)
class CacheEntry:
    """Something that can be removed. `id` names it: a hub id with its commit, or the SHA-256 of a GGUF file.

    `size_bytes` counts files that it shares with others; `files` has the bytes by inode, to count them once.
    `last_used_s` is in seconds since the epoch. `record` is the file that lists its digests, where there is one.
    """

    id: str
    kind: EntryKind
    name: str
    revision: str | None
    last_used_s: float
    is_in_use: bool
    path: Path
    record: Path | None = None
    files: Mapping[int, int] = field(default_factory=dict, repr=False)

    @property
    def size_bytes(self) -> int:
        return sum(self.files.values())


def conversion_record(folder: Path) -> Path:
    """Where the digests of an unpacked GGUF file are kept."""
    return folder.with_name(f"{folder.name}.json")


def read_entries(root: Path) -> tuple[CacheEntry, ...]:
    """All entries under `root`, the last used first."""
    found = [*_read_snapshots(root), *_read_conversions(root), *_read_partials(root)]
    return tuple(sorted(found, key=lambda entry: entry.last_used_s, reverse=True))


def _read_snapshots(root: Path) -> Iterator[CacheEntry]:
    store = SnapshotStore(root)
    for snapshot, is_whole in store.scan():
        path = store.folder(snapshot) if is_whole else store.incoming(snapshot)
        kind = EntryKind.DOWNLOAD if is_whole else EntryKind.UNFINISHED
        entry_id = str(snapshot) if is_whole else f"{snapshot} (unfinished)"
        record = store.record(snapshot) if is_whole else None
        yield from _entry(path, entry_id, kind, snapshot.repo_id, snapshot.commit[:12], record)


def _read_conversions(root: Path) -> Iterator[CacheEntry]:
    for path in root.glob("*"):
        if _SHA256.fullmatch(path.name) and path.is_dir():
            record = conversion_record(path)
            known = read_record(record)
            name = path.name[:12] if known is None else known[0]
            yield from _entry(path, path.name, EntryKind.CONVERSION, name, path.name[:12], record if known else None)


def _read_partials(root: Path) -> Iterator[CacheEntry]:
    for path in BlobStore(root).partials.glob("*"):
        if path.suffix != ".etag" and not path.name.startswith("."):
            name = f"a file, {path.name[:12]}"
            yield from _entry(path, f"partial/{path.name}", EntryKind.UNFINISHED, name, None, None)


def _entry(
    path: Path, entry_id: str, kind: EntryKind, name: str, revision: str | None, record: Path | None
) -> Iterator[CacheEntry]:
    """The entry, unless it goes while it is looked at."""
    with suppress(FileNotFoundError, NotADirectoryError):
        stats = [file.stat() for file in (path.rglob("*") if path.is_dir() else (path,)) if file.is_file()]
        files = {stat.st_ino: stat.st_size for stat in stats}
        last_used_s = path.stat().st_mtime
        with seized(path) as is_free:
            pass
        yield CacheEntry(entry_id, kind, name, revision, last_used_s, not is_free, path, record, files)
