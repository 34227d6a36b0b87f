"""A model of the hub as a whole folder in the cache: there already, or fetched by one and waited for by the others."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from engine.errors import WeightsError
from engine.weights.atomic import sync_folder
from engine.weights.blobs import Hasher
from engine.weights.cache import WeightsCache
from engine.weights.download import WAITING, Download, Progress, RetryPolicy
from engine.weights.files import FileEntry, read_record, write_record
from engine.weights.hub import Hub
from engine.weights.lease import Lease, lease_folder, wait_for_lock
from engine.weights.repository import RemoteFile, Repository
from engine.weights.snapshot import Snapshot

_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Wanted:
    """The snapshot and those of the repository's files that belong into it."""

    snapshot: Snapshot
    repository: Repository
    files: tuple[RemoteFile, ...]


@dataclass(frozen=True, slots=True)
class Fetched:
    """The whole folder with all digests, and what keeps it."""

    folder: Path
    files: tuple[FileEntry, ...]
    lease: Lease


def fetch_snapshot(
    wanted: Wanted, cache: WeightsCache, ask: Callable[[], Hub], on_progress: Progress, retry: RetryPolicy
) -> Fetched:
    """Have what is wanted in the cache. `ask` gives the hub, and is called only when something must be fetched.

    Raises:
        WeightsError: see `Download.run` and `WeightsCache.make_room`; whatever `ask` raises.
        OSError: the cache cannot be written.
    """
    while True:
        found = _find(wanted.snapshot, cache)
        if found is not None:
            return found
        hub = ask()
        with _incoming(cache, wanted.snapshot, on_progress) as incoming:
            if incoming is not None:
                _fill(wanted, cache, incoming, hub, on_progress, retry)


def _find(snapshot: Snapshot, cache: WeightsCache) -> Fetched | None:
    folder = cache.snapshots.folder(snapshot)
    lease = lease_folder(folder)
    if lease is None:
        return None
    known = read_record(cache.snapshots.record(snapshot))
    if known is None:
        lease.close()
        raise WeightsError(f"{snapshot} is in the cache without its list of files: restart, which repairs it")
    return Fetched(folder, known[1], lease)


@contextmanager
def _incoming(cache: WeightsCache, snapshot: Snapshot, on_progress: Progress) -> Iterator[Path | None]:
    """The folder in which the snapshot arrives, locked; None where another one had it meanwhile."""
    incoming = cache.snapshots.incoming(snapshot)
    incoming.mkdir(parents=True, exist_ok=True)
    cache.blobs.prepare()
    try:
        handle = os.open(incoming, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:  # it took its name since
        yield None
        return
    try:
        if not wait_for_lock(handle, incoming, lambda: on_progress(WAITING, None)):
            yield None
        elif cache.snapshots.folder(snapshot).is_dir():
            cache.discard_path(incoming)
            yield None
        else:
            yield incoming
    finally:
        fcntl.flock(handle, fcntl.LOCK_UN)
        os.close(handle)


def _fill(
    wanted: Wanted, cache: WeightsCache, incoming: Path, hub: Hub, on_progress: Progress, retry: RetryPolicy
) -> None:
    snapshot, repository = wanted.snapshot, wanted.repository
    present = _check_present(incoming, wanted.files)
    missing = [file for file in wanted.files if file.path not in present]
    cache.make_room(bytes_to_fetch(wanted, cache), str(snapshot))
    fetched = Download(hub, cache.blobs, repository, incoming, retry).run(missing, on_progress)
    entries = {**present, **{entry.path: entry for entry in fetched}}
    write_record(cache.snapshots.record(snapshot), snapshot.repo_id, [entries[file.path] for file in wanted.files])
    os.utime(incoming)
    incoming.rename(cache.snapshots.folder(snapshot))
    sync_folder(incoming.parent)


def _check_present(incoming: Path, chosen: Sequence[RemoteFile]) -> dict[str, FileEntry]:
    """What is linked there from an earlier attempt, and so was verified then. Whatever else lies there goes."""
    wanted = {file.path: file for file in chosen}
    present = {}
    for path in [path for path in incoming.rglob("*") if path.is_file()]:
        file = wanted.get(str(path.relative_to(incoming)))
        entry = None if file is None else _check_file(path, file)
        if entry is None:
            path.unlink()
        else:
            present[entry.path] = entry
    return present


def _check_file(path: Path, file: RemoteFile) -> FileEntry | None:
    size_bytes = path.stat().st_size
    if file.size_bytes is not None and file.size_bytes != size_bytes:
        return None
    if file.sha256 is not None:
        return FileEntry(file.path, size_bytes, file.sha256)
    hasher = Hasher(file)
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            hasher.update(chunk)
    digests = hasher.digests()
    return FileEntry(file.path, size_bytes, digests.sha256) if digests.match(file) else None


def bytes_to_fetch(wanted: Wanted, cache: WeightsCache) -> int:
    """What is neither in the cache as a whole file, of this model or of another, nor as the part that arrived."""
    incoming = cache.snapshots.incoming(wanted.snapshot)
    new = [file for file in wanted.files if not (incoming / file.path).is_file() and not cache.blobs.holds(file)]
    partial_size = partial(cache.blobs.partial_size, wanted.repository)
    return sum(max(0, (file.size_bytes or 0) - partial_size(file)) for file in new)
