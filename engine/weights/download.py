"""Files from the hub into the blob store: two at a time, resumed, verified, cancellable.

The calling thread only reports; two threads of its own receive. So `on_progress` is called ten times a second whatever
the network does, and when it raises, connections are shut from here and the threads end.

SHA-256 is computed while the bytes pass. What an earlier attempt left is read once more for it, at disk speed. A file
that comes whole and wrong is fetched again from its beginning, once, and it alone.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.errors import WeightsError
from engine.weights.blobs import BlobStore, Digests, Hasher, Partial
from engine.weights.files import FileEntry
from engine.weights.hub import Body, Hub, HubSession
from engine.weights.repository import RemoteFile, Repository
from engine.weights.transfer import Speedometer, TransferState, describe_duration
from engine.weights.trouble import HubError, Trouble

Progress = Callable[[str, float | None], None]
WAITING = "waiting for another download"
_POLL_S = 0.1
_ABANDON_S = 3.0


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """`max_failures` in a row without one byte more, and `max_attempts` a file in all, pauses doubling from `pause_s`
    to `longest_pause_s`; a hub that asks for a longer pause than that is believed once it is asked for again."""

    num_parallel: int = 2
    max_failures: int = 5
    max_attempts: int = 60
    pause_s: float = 0.5
    longest_pause_s: float = 30.0

    def is_over(self, num_failures: int, num_attempts: int) -> bool:
        return num_failures > self.max_failures or num_attempts >= self.max_attempts

    def pause_after(self, num_failures: int, asked_s: float | None) -> float:
        return min(self.longest_pause_s, max(asked_s or 0.0, self.pause_s * 2.0 ** min(num_failures - 1, 16)))


class _StoppedError(Exception):
    """The caller does not want the file any more."""


class Download:
    """The fetching of some files of one repository into a folder. Used once."""

    def __init__(
        self, hub: Hub, store: BlobStore, repository: Repository, folder: Path, retry: RetryPolicy | None = None
    ) -> None:
        self._hub = hub
        self._store = store
        self._repository = repository
        self._folder = folder
        self._retry = retry or RetryPolicy()
        self._stop = threading.Event()
        self._errors: queue.SimpleQueue[BaseException] = queue.SimpleQueue()

    def run(self, files: Sequence[RemoteFile], on_progress: Progress) -> tuple[FileEntry, ...]:
        """Have all `files` in the folder, each a link to a verified blob; the small ones come first.

        Raises:
            WeightsError: a file cannot be had, or comes wrong twice; the first such error ends the whole.
        """
        if not files:
            return ()
        ordered = sorted(files, key=lambda file: file.size_bytes or 0)
        with self._hub.session() as session:
            arrivals = [_Arrival(self, session, file) for file in ordered]
            waiting: queue.SimpleQueue[_Arrival] = queue.SimpleQueue()
            for arrival in arrivals:
                waiting.put(arrival)
            threads = [
                threading.Thread(target=self._work, args=(waiting,), name=f"download-{index}", daemon=True)
                for index in range(min(self._retry.num_parallel, len(arrivals)))
            ]
            for thread in threads:
                thread.start()
            try:
                self._report_until_over(threads, arrivals, on_progress)
            finally:
                self._stop.set()
                session.abort()
                _join(threads)
        if not self._errors.empty():
            raise self._errors.get()
        return tuple(arrival.entry for arrival in arrivals if arrival.entry is not None)

    def _report_until_over(
        self, threads: list[threading.Thread], arrivals: list[_Arrival], on_progress: Progress
    ) -> None:
        speedometer = Speedometer()
        sizes = [arrival.file.size_bytes for arrival in arrivals]
        total_bytes = None if None in sizes else sum(size or 0 for size in sizes)
        while any(thread.is_alive() for thread in threads) and not self._stop.is_set():
            speed = speedometer.read(time.perf_counter(), sum(arrival.received_bytes for arrival in arrivals))
            notes = {arrival.note for arrival in arrivals if arrival.is_active}
            done_bytes = sum(arrival.done_bytes for arrival in arrivals)
            if notes == {WAITING}:
                on_progress(WAITING, None)
            else:
                note = next(iter(notes), "") if len(notes) == 1 else ""
                state = TransferState(done_bytes, total_bytes, speed, note)
                on_progress(str(state), state.fraction)
            next((thread for thread in threads if thread.is_alive()), threads[0]).join(_POLL_S)

    def _work(self, waiting: queue.SimpleQueue[_Arrival]) -> None:
        try:
            while not waiting.empty() and not self._stop.is_set():
                try:
                    arrival = waiting.get_nowait()
                except queue.Empty:
                    return
                arrival.fetch(self._store, self._folder / arrival.file.path)
        except _StoppedError:
            return
        except BaseException as error:  # noqa: BLE001 - raised again by the thread that reports
            if not self._stop.is_set():
                self._errors.put(error)
                self._stop.set()

    @property
    def repository(self) -> Repository:
        return self._repository

    @property
    def retry(self) -> RetryPolicy:
        return self._retry

    def check_wanted(self) -> None:
        """Raise if the caller has stopped."""
        if self._stop.is_set():
            raise _StoppedError

    def pause(self, seconds: float) -> None:
        self._stop.wait(seconds)
        self.check_wanted()


class _Arrival:
    """One file on its way. The counters are written by its thread and read by the one that reports."""

    def __init__(self, download: Download, session: HubSession, file: RemoteFile) -> None:
        self.file = file
        self.done_bytes = 0
        self.received_bytes = 0
        self.note = ""
        self.is_active = False
        self.entry: FileEntry | None = None
        self._download = download
        self._session = session
        self._hasher = Hasher(file)

    def fetch(self, store: BlobStore, target: Path) -> None:
        self.is_active = True
        target.parent.mkdir(exist_ok=True)
        if not self._link(store, target):
            with store.arriving(self._download.repository, self.file, self._wait) as partial:
                self.note = ""
                if self._link(store, target):
                    partial.remove()
                else:
                    self._fetch_verified(store, partial, target)
        self.is_active = False

    def _link(self, store: BlobStore, target: Path) -> bool:
        sha256 = self.file.sha256
        if sha256 is None or not store.link(sha256, self.file.size_bytes, target):
            return False
        self.done_bytes = target.stat().st_size
        self.entry = FileEntry(self.file.path, self.done_bytes, sha256)
        return True

    def _wait(self) -> None:
        self.note = WAITING
        self._download.check_wanted()

    def _fetch_verified(self, store: BlobStore, partial: Partial, target: Path) -> None:
        for _ in range(2):
            digests = self._receive(partial)
            if digests.match(self.file):
                store.keep(partial, digests.sha256, target)
                self.entry = FileEntry(self.file.path, target.stat().st_size, digests.sha256)
                return
            self._restart(partial)
            self.note = f"{self.file.path} came damaged, fetching it again"
        raise WeightsError(
            f"{self.file.path} of {self._download.repository.repo_id} came damaged twice: its "
            f"{'SHA-256' if self.file.sha256 else 'git SHA-1'} is not the one that the hub lists; something between "
            "changes it (a proxy or mirror), or the hub's copy is bad: try later, or another HF_ENDPOINT"
        )

    def _receive(self, partial: Partial) -> Digests:
        """Have the whole file in `partial`, over as many connections as it takes."""
        self._take_up(partial)
        num_failures = 0
        for attempt in range(1, self._download.retry.max_attempts + 1):
            if partial.size_bytes == self.file.size_bytes:
                break
            before_bytes = partial.size_bytes
            try:
                self._receive_once(partial)
                break
            except HubError as error:
                num_failures = 1 if partial.size_bytes > before_bytes else num_failures + 1
                if not error.is_temporary or self._download.retry.is_over(num_failures, attempt):
                    raise
                if error.trouble is Trouble.RANGE:
                    self._restart(partial)
                self._pause(num_failures, error)
        return self._hasher.digests()

    def _take_up(self, partial: Partial) -> None:
        """Go on from what an earlier attempt left, unless it cannot be of this content."""
        size_bytes = self.file.size_bytes
        has_digest = self.file.sha256 is not None or self.file.git_sha1 is not None
        if (size_bytes is not None and partial.size_bytes > size_bytes) or not (has_digest or partial.etag):
            partial.restart()
        self._hasher, self.done_bytes = Hasher(self.file), 0
        for chunk in partial.read():
            self._download.check_wanted()
            self._take(chunk)

    def _take(self, chunk: bytes) -> None:
        self._hasher.update(chunk)
        self.done_bytes += len(chunk)

    def _restart(self, partial: Partial) -> None:
        partial.restart()
        self._hasher, self.done_bytes = Hasher(self.file), 0

    def _pause(self, num_failures: int, error: HubError) -> None:
        note, pause_s = self.note, self._download.retry.pause_after(num_failures, error.retry_after_s)
        self.note = f"{_why(error)}, trying again in {describe_duration(pause_s)}"
        self._download.pause(pause_s)
        self.note = note

    def _receive_once(self, partial: Partial) -> None:
        self._download.check_wanted()
        with self._session.fetch(self._download.repository, self.file.path, partial.size_bytes, partial.etag) as body:
            self._receive_body(body, partial)

    def _receive_body(self, body: Body, partial: Partial) -> None:
        is_other = partial.size_bytes > 0 and body.etag != partial.etag
        if is_other or body.start_byte != partial.size_bytes:
            self._restart(partial)
            if body.start_byte > 0:  # a range of something else: nothing of it can be used
                raise self._broken("changed while it was fetched")
        wanted_bytes = body.total_bytes if self.file.size_bytes is None else self.file.size_bytes
        if body.total_bytes not in (None, wanted_bytes):
            raise WeightsError(
                f"{self.file.path} has {body.total_bytes:,} bytes at the hub, which lists it with {wanted_bytes:,}: "
                "something between changes it (a proxy or mirror); try another HF_ENDPOINT"
            )
        partial.remember_etag(body.etag)
        for chunk in body.chunks:
            self._download.check_wanted()
            if wanted_bytes is not None and partial.size_bytes + len(chunk) > wanted_bytes:
                self._restart(partial)
                raise self._broken(f"is longer than the {wanted_bytes:,} bytes listed")
            partial.write(chunk)
            self._take(chunk)
            self.received_bytes += len(chunk)
        if wanted_bytes is not None and partial.size_bytes < wanted_bytes:
            raise self._broken("ended early")

    def _broken(self, how: str) -> HubError:
        return HubError(f"{self.file.path} {how}", Trouble.BROKEN)


def _join(threads: Sequence[threading.Thread]) -> None:
    """One that cannot be ended (it resolves a name, or the disk is slow) is left behind: it writes nothing more."""
    deadline_s = time.monotonic() + _ABANDON_S
    for thread in threads:
        thread.join(max(0.0, deadline_s - time.monotonic()))


def _why(error: HubError) -> str:
    return {Trouble.BUSY: "the hub is busy", Trouble.FAILING: "the hub is in trouble"}.get(
        error.trouble, "connection lost"
    )
