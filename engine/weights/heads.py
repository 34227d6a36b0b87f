"""The beginnings of files at the hub, as far as somebody reads them: a header, and not the weights behind it.

They come in ranges. A server that ignores a range and sends the whole file is not read further than was asked for.
"""

from __future__ import annotations

import functools
import io
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from typing import TypeVar

from engine.errors import WeightsError
from engine.weights.cache import WeightsCache
from engine.weights.files import OpenFile, Readable
from engine.weights.hub import Hub, HubSession
from engine.weights.repository import RemoteFile, Repository
from engine.weights.trouble import HubError, Trouble

Progress = Callable[[str, float | None], None]
Result = TypeVar("Result")

FIRST_BYTES = 128 << 10  # the whole header of most shards
_MAX_STEP_BYTES = 1 << 20  # what is fetched beyond what is asked for, at most
_NUM_PARALLEL = 4
_POLL_S = 0.1
_REMEDY = "the hub's copy is bad, name another revision"


class _StoppedError(Exception):
    """Nobody wants the file any more."""


class Head:
    """The beginning of a file, fetched while it is read. Used by one thread."""

    def __init__(
        self, session: HubSession, repository: Repository, file: RemoteFile, stopped: threading.Event | None = None
    ) -> None:
        self._session, self._repository, self._file = session, repository, file
        self._stopped = stopped or threading.Event()
        self._size_bytes = file.size_bytes
        self._content = bytearray()
        self._position = 0

    @property
    def content(self) -> bytes:
        """All that was fetched."""
        return bytes(self._content)

    def open(self) -> OpenFile:
        """The file for who reads headers.

        Raises:
            HubError: neither the hub's list nor the first answer says how large it is, or there is no answer.
        """
        if self._size_bytes is None:
            self._fetch(FIRST_BYTES)
        return _open(self._repository, self._file.path, self._size_bytes or 0, self)

    def read(self, num_bytes: int, /) -> bytes:
        """The next `num_bytes`, fewer only at the end of the file.

        Raises:
            HubError: the hub refuses, or the connection breaks.
            WeightsError: the file is of another size than the hub lists.
        """
        size_bytes = self._size_bytes or 0
        stop = min(self._position + num_bytes, size_bytes)
        if stop > len(self._content):
            have = len(self._content)
            self._fetch(min(size_bytes, max(stop, FIRST_BYTES, have + min(have, _MAX_STEP_BYTES))))
        found = bytes(self._content[self._position : stop])
        self._position = stop
        return found

    def _fetch(self, stop_byte: int) -> None:
        """Have everything before `stop_byte`."""
        content, file = self._content, self._file
        with self._session.fetch(self._repository, file.path, len(content), stop_byte=stop_byte) as body:
            if body.start_byte > len(content):
                raise HubError(f"{file.path}: the hub sends another part than was asked for", Trouble.MALFORMED)
            self._learn_size(body.total_bytes)
            del content[body.start_byte :]  # of a server that ignores the range everything comes once more
            stop_byte = min(stop_byte, self._size_bytes or 0)
            for chunk in body.chunks:
                if self._stopped.is_set():
                    raise _StoppedError
                content += chunk[: stop_byte - len(content)]
                if len(content) >= stop_byte:
                    return
        if len(content) < stop_byte:
            raise HubError(f"{file.path} ended early", Trouble.BROKEN)

    def _learn_size(self, total_bytes: int | None) -> None:
        if self._size_bytes is None:
            if total_bytes is None:
                raise HubError(
                    f"the hub does not say how large {self._file.path} of {self._repository.repo_id} is: pull it, then "
                    "its memory can be planned",
                    Trouble.MALFORMED,
                )
            self._size_bytes = total_bytes
        elif total_bytes not in (None, self._size_bytes):
            raise WeightsError(
                f"{self._file.path} has {total_bytes:,} bytes at the hub, which lists it with {self._size_bytes:,}: "
                "something between changes it (a proxy or mirror); try another HF_ENDPOINT"
            )


class HeadReader:
    """Reads the beginnings of a repository's files, several at a time, and keeps them in the cache for as long as what
    the hub says of a branch is believed. `ask` gives the hub, and is called only when something must be fetched.
    """

    def __init__(
        self, repository: Repository, cache: WeightsCache, ask: Callable[[], Hub], on_progress: Progress
    ) -> None:
        self._repository, self._cache, self._on_progress = repository, cache, on_progress
        self._ask = functools.cache(ask)

    def read(self, files: Sequence[RemoteFile], parse: Callable[[OpenFile], Result]) -> dict[str, Result]:
        """What `parse` makes of each file, by path. `on_progress` is called ten times a second meanwhile, and when it
        raises, nothing more is fetched.

        Raises:
            WeightsError: a file cannot be had; whatever `ask`, `parse` and `on_progress` raise.
            OSError: the cache cannot be written.
        """
        kept = {file.path: content for file in files if (content := self._find(file)) is not None}
        found = {
            file.path: parse(_open(self._repository, file.path, file.size_bytes or 0, io.BytesIO(kept[file.path])))
            for file in files
            if file.path in kept
        }
        missing = [file for file in files if file.path not in kept]
        return {**found, **self._fetch(missing, parse)} if missing else found

    def _find(self, file: RemoteFile) -> bytes | None:
        if file.size_bytes is None:  # the beginning alone does not tell it
            return None
        since_s = self._cache.clock.wall() - self._cache.metadata_ttl_s
        return self._cache.snapshots.read_head(self._repository, file.path, since_s)

    def _fetch(self, files: Sequence[RemoteFile], parse: Callable[[OpenFile], Result]) -> dict[str, Result]:
        hub, stopped = self._ask(), threading.Event()
        with hub.session() as session, ThreadPoolExecutor(_NUM_PARALLEL, "hub-headers") as pool:
            work = {
                pool.submit(self._fetch_one, Head(session, self._repository, file, stopped), file, parse): file.path
                for file in files
            }
            try:
                self._follow(set(work), hub.endpoint)
            finally:
                stopped.set()
                pool.shutdown(wait=False, cancel_futures=True)
                session.abort()
        self._cache.snapshots.clear_heads(self._cache.clock.wall() - self._cache.metadata_ttl_s)
        return {path: future.result() for future, path in work.items()}

    def _follow(self, work: set[Future[Result]], endpoint: str) -> None:
        num_files, waiting = len(work), work
        while waiting:
            done, waiting = wait(waiting, _POLL_S, FIRST_EXCEPTION)
            for future in done:
                future.result()
            num_done = num_files - len(waiting)
            self._on_progress(f"reading headers at {endpoint}: {num_done} of {num_files} files", num_done / num_files)

    def _fetch_one(self, head: Head, file: RemoteFile, parse: Callable[[OpenFile], Result]) -> Result:
        found = parse(head.open())
        self._cache.snapshots.keep_head(self._repository, file.path, head.content)
        return found


def _open(repository: Repository, path: str, size_bytes: int, stream: Readable) -> OpenFile:
    return OpenFile(f"{path} of {repository.repo_id}", size_bytes, stream, _REMEDY)
