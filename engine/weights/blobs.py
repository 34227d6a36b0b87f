"""Files by the SHA-256 of their content, and those that are still arriving.

A finished file is a blob, `blobs/<sha256>`, and a hard link to it in every model folder that holds it. The links are
the count of who needs it, kept by the file system itself: a blob with one link is nobody's. So nothing has to be
locked to share one or to sweep the rest: a link that is made in the moment a blob is swept keeps the content alive.

A file that is arriving is `partial/<digest the hub gives>`, locked by who writes it, so that a file of two models is
fetched once too. It stays where it is when its writer is stopped or killed, and the next one goes on from there.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from engine.weights.atomic import sync_folder, write_atomically
from engine.weights.lease import wait_for_lock
from engine.weights.repository import RemoteFile, Repository

_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Digests:
    """What a file's content comes to; `git_sha1` is None unless it was asked for."""

    sha256: str
    git_sha1: str | None

    def match(self, file: RemoteFile) -> bool:
        """Is this the content that the hub lists. Where it lists no digest at all, any content of the size is."""
        if file.sha256 is not None:
            return file.sha256 == self.sha256
        return file.git_sha1 is None or file.git_sha1 == self.git_sha1


class Hasher:
    """Digests of a file while it streams past. Git's SHA-1 is over `blob <size>\\0` and the content."""

    def __init__(self, file: RemoteFile) -> None:
        self._sha256 = hashlib.sha256()
        self._git_sha1 = None
        if file.sha256 is None and file.git_sha1 is not None and file.size_bytes is not None:
            self._git_sha1 = hashlib.sha1(b"blob %d\0" % file.size_bytes, usedforsecurity=False)

    def update(self, chunk: bytes) -> None:
        self._sha256.update(chunk)
        if self._git_sha1 is not None:
            self._git_sha1.update(chunk)

    def digests(self) -> Digests:
        return Digests(self._sha256.hexdigest(), None if self._git_sha1 is None else self._git_sha1.hexdigest())


class Partial:
    """A file that is arriving, open and locked."""

    def __init__(self, path: Path, handle: int) -> None:
        self.path = path
        self._handle = handle
        self._etag_file = path.with_name(f"{path.name}.etag")
        self.size_bytes = os.lseek(handle, 0, os.SEEK_END)

    @property
    def etag(self) -> str | None:
        """The ETag, at the host that sent it, of the content that is here."""
        try:
            return self._etag_file.read_text()
        except FileNotFoundError:
            return None

    def remember_etag(self, etag: str | None) -> None:
        if etag is None:
            self._etag_file.unlink(missing_ok=True)
        elif etag != self.etag:
            write_atomically(self._etag_file, etag.encode())

    def write(self, chunk: bytes) -> None:
        view = memoryview(chunk)
        while view:
            num_written = os.write(self._handle, view)
            self.size_bytes += num_written
            view = view[num_written:]

    def read(self) -> Iterator[bytes]:
        """What is here already. Leaves the position at the end."""
        os.lseek(self._handle, 0, os.SEEK_SET)
        while chunk := os.read(self._handle, _CHUNK_BYTES):
            yield chunk

    def restart(self) -> None:
        """Forget what is here."""
        os.ftruncate(self._handle, 0)
        self.size_bytes = os.lseek(self._handle, 0, os.SEEK_SET)
        self._etag_file.unlink(missing_ok=True)

    def sync(self) -> None:
        os.fsync(self._handle)

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)
        self._etag_file.unlink(missing_ok=True)


class BlobStore:
    """The blobs under `root` and what is arriving there."""

    def __init__(self, root: Path) -> None:
        self.blobs = root / "blobs"
        self.partials = root / "partial"

    def prepare(self) -> None:
        """Make the folders."""
        self.blobs.mkdir(parents=True, exist_ok=True)
        self.partials.mkdir(parents=True, exist_ok=True)

    def link(self, sha256: str, size_bytes: int | None, target: Path) -> bool:
        """Put the blob at `target`, if it is here and of the size it should be."""
        blob = self.blobs / sha256
        try:
            if size_bytes is not None and blob.stat().st_size != size_bytes:
                return False
            os.link(blob, target)
        except FileNotFoundError:
            return False
        except FileExistsError:
            return True
        return True

    def holds(self, file: RemoteFile) -> bool:
        """Is the whole file here, of whichever model."""
        return file.sha256 is not None and (self.blobs / file.sha256).is_file()

    def partial_size(self, repository: Repository, file: RemoteFile) -> int:
        """Bytes of the file that are here from an earlier attempt."""
        try:
            return (self.partials / _partial_name(repository, file)).stat().st_size
        except FileNotFoundError:
            return 0

    @contextmanager
    def arriving(self, repository: Repository, file: RemoteFile, on_wait: Callable[[], None]) -> Iterator[Partial]:
        """The file's partial content, locked; `on_wait` is called while another thread or process fetches it."""
        path = self.partials / _partial_name(repository, file)
        while True:
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                if wait_for_lock(handle, path, on_wait):
                    yield Partial(path, handle)
                    return
            finally:
                os.close(handle)

    def keep(self, partial: Partial, sha256: str, target: Path) -> None:
        """Make the whole, verified file a blob that stands at `target` too. The link comes first, so that no sweep
        finds the blob with one link only."""
        partial.sync()
        if not self.link(sha256, partial.size_bytes, target):
            partial.path.chmod(0o444)
            with suppress(FileExistsError):
                os.link(partial.path, target)
            partial.path.replace(self.blobs / sha256)
            sync_folder(self.blobs)
        partial.remove()
        sync_folder(target.parent)

    def sweep(self) -> int:
        """Remove the blobs that no folder holds; how many bytes that freed."""
        freed_bytes = 0
        for blob in self.blobs.glob("*"):
            with suppress(FileNotFoundError):  # another process sweeps too
                stat = blob.stat()
                if stat.st_nlink == 1:
                    blob.unlink()
                    freed_bytes += stat.st_size
        return freed_bytes


def _partial_name(repository: Repository, file: RemoteFile) -> str:
    if file.sha256 is not None:
        return file.sha256
    if file.git_sha1 is not None:
        return f"git-{file.git_sha1}"
    name = f"{repository.repo_id}|{repository.commit}|{file.path}"
    return f"name-{hashlib.sha256(name.encode()).hexdigest()}"
