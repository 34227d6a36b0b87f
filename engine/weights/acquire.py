"""From a name to a folder that can be loaded, and stays while it is used."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from engine.errors import WeightsError
from engine.weights.cache import WeightsCache
from engine.weights.download import Progress, RetryPolicy
from engine.weights.fetch import Wanted, fetch_snapshot
from engine.weights.files import FileEntry, read_record
from engine.weights.gguf_header import check_gguf
from engine.weights.hub import Hub
from engine.weights.inventory import conversion_record
from engine.weights.lease import Lease, lease_folder
from engine.weights.lookup import look_up
from engine.weights.selection import choose_files, is_gguf
from engine.weights.snapshot import Snapshot
from engine.weights.sources import HubId, Source, find_source

ConvertGguf = Callable[[Path, Path, Progress], None]


@dataclass(frozen=True)
class Acquired:
    """A model's files, ready to be loaded.

    `revision` is 12 hex digits: of the commit, of the GGUF file's SHA-256, or for a local folder over its config and
    the names, sizes and times of its weights. While `lease` is held nothing of it is evicted; close it when the model
    is unloaded. `files` have a SHA-256 where the cache keeps one.
    """

    name: str
    folder: Path
    revision: str
    files: tuple[FileEntry, ...]
    origin: Source
    lease: Lease


@dataclass(frozen=True)
class Preloaded:
    """How one source of a list went: its revision and bytes in the cache, or the reason that it is not there."""

    source: str
    revision: str | None = None
    size_bytes: int = 0
    reason: str | None = None


def acquire(
    source: str,
    cache: WeightsCache,
    convert_gguf: ConvertGguf,
    on_progress: Progress,
    *,
    hub: Hub,
    retry: RetryPolicy | None = None,
) -> Acquired:
    """Have `source` as a folder of safetensors with its config and tokenizer: where it is, or in the cache.

    `on_progress(stage, fraction)` is called several times a second while files are fetched or waited for; when it
    raises, what has arrived is kept for the next time and the exception passes.

    Raises:
        WeightsError: there is no such model, it cannot be fetched or comes damaged, or the cache has no room.
    """
    origin = find_source(source)
    if origin.folder is not None:
        return _acquire_folder(origin, origin.folder)
    conversions = _Conversions(origin, cache, convert_gguf, on_progress)
    with cache.writing():
        if origin.hub is not None:
            return _acquire_from_hub(origin.hub, conversions, hub, retry or RetryPolicy())
        if origin.gguf_file is not None:
            return conversions.have(origin.gguf_file)
    raise WeightsError(f"{source!r} names nothing that can be loaded")


def preload(
    sources: Iterable[str], cache: WeightsCache, convert_gguf: ConvertGguf, on_progress: Progress, *, hub: Hub
) -> tuple[Preloaded, ...]:
    """Have each of `sources` in the cache; one that cannot be had does not keep the others out."""
    return tuple(_preload_one(source, cache, convert_gguf, on_progress, hub) for source in sources)


def _preload_one(
    source: str, cache: WeightsCache, convert_gguf: ConvertGguf, on_progress: Progress, hub: Hub
) -> Preloaded:
    def report(stage: str, fraction: float | None) -> None:
        on_progress(f"{source}: {stage}", fraction)

    try:
        acquired = acquire(source, cache, convert_gguf, report, hub=hub)
    except WeightsError as error:
        return Preloaded(source, reason=str(error))
    acquired.lease.close()
    return Preloaded(source, acquired.revision, sum(file.size_bytes for file in acquired.files))


def _acquire_folder(origin: Source, folder: Path) -> Acquired:
    return Acquired(origin.name, folder, folder_revision(folder), _list_files(folder), origin, Lease())


def _list_files(folder: Path) -> tuple[FileEntry, ...]:
    files = sorted(path for path in folder.iterdir() if path.is_file())
    return tuple(FileEntry(path.name, path.stat().st_size, None) for path in files)


def folder_revision(folder: Path) -> str:
    """What tells two versions of a local folder apart: reading all of its weights would take seconds a gigabyte."""
    digest = hashlib.sha256((folder / "config.json").read_bytes())
    for file in sorted(folder.glob("*.safetensors")):
        stat = file.stat()
        digest.update(f"{file.name}|{stat.st_size}|{stat.st_mtime_ns}".encode())
    return digest.hexdigest()[:12]


@dataclass(frozen=True)
class _Conversions:
    """Unpacked GGUF files in the cache."""

    origin: Source
    cache: WeightsCache
    convert_gguf: ConvertGguf
    on_progress: Progress

    def have(self, file: Path, sha256: str | None = None, revision: str | None = None) -> Acquired:
        """The file unpacked; done now where it is not yet."""
        check_gguf(file)
        while True:
            folder = self.cache.folder_for(file, lambda work: self._run(file, work), sha256=sha256, on_wait=self._wait)
            found = self.find(folder.name, revision)
            if found is not None:
                self.cache.keep_bound()
                return found

    def find(self, sha256: str, revision: str | None) -> Acquired | None:
        """The unpacked file of that digest; None where it is not there. `revision` is its own where none is given."""
        folder = self.cache.root / sha256
        lease = lease_folder(folder)
        if lease is None:
            return None
        known = read_record(conversion_record(folder))
        files = known[1] if known is not None else _list_files(folder)
        return Acquired(self.origin.name, folder, revision or sha256[:12], files, self.origin, lease)

    def _run(self, file: Path, work: Path) -> None:
        self.convert_gguf(file, work, self.on_progress)

    def _wait(self) -> None:
        self.on_progress("waiting for another conversion", None)


def _acquire_from_hub(hub_id: HubId, conversions: _Conversions, hub: Hub, retry: RetryPolicy) -> Acquired:
    cache, on_progress = conversions.cache, conversions.on_progress
    found = look_up(hub_id, cache, hub, on_progress)
    repository = found.repository
    chosen = choose_files(hub_id.repo_id, repository.files, hub_id.gguf_name)
    revision = repository.commit[:12]
    gguf = chosen[0] if is_gguf(chosen) else None
    if gguf is not None and gguf.sha256 is not None:
        # Who has the unpacked weights does not need the file they came from.
        unpacked = conversions.find(gguf.sha256, revision)
        if unpacked is not None:
            return unpacked
    snapshot = Snapshot(hub_id.repo_id, repository.commit, gguf.path if gguf else None)
    fetched = fetch_snapshot(Wanted(snapshot, repository, chosen), cache, found.ask, on_progress, retry)
    if gguf is None:
        origin = conversions.origin
        return Acquired(origin.name, fetched.folder, revision, fetched.files, origin, fetched.lease)
    with fetched.lease:
        return conversions.have(fetched.folder / gguf.path, fetched.files[0].sha256, revision)
