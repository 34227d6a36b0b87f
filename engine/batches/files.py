"""Files that clients upload for batches, and that batches write: bytes in a folder, what is known of them in the state.

Layout: `files/ID` is a file; `uploads/` has what is still coming in.
"""

from __future__ import annotations

import math
import os
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from engine.batches.errors import FileTooLargeError, FileUnknownError
from engine.batches.file_store import FileStore, StoredFile
from engine.errors import StoreError
from engine.weights.atomic import sync_folder

MAX_FILE_BYTES = 100 * 2**20
MAX_FILES = 10_000
MAX_TOTAL_BYTES = 10 * 2**30
# Of one key, so that none takes the room of all.
MAX_KEY_FILES = 1_000
MAX_KEY_BYTES = 2 * 2**30
MAX_NAME_LENGTH = 255
BATCH, BATCH_OUTPUT = "batch", "batch_output"
_LEFTOVER_S = 3_600.0


class Files:
    """Every method may be called from any thread, and raises StoreError when the disk or the database cannot do it. A
    file is only ever found by the key that made it; `key_id` is None for callers without a key."""

    def __init__(
        self, folder: Path, store: FileStore, clock: Callable[[], float] = time.time, ttl_s: float = math.inf
    ) -> None:
        self._folder = folder / "files"
        self._uploads = folder / "uploads"
        self._store = store
        self._clock = clock
        self._ttl_s = ttl_s

    def open_upload(self, key_id: str | None) -> Path:
        """The path of a new empty file, for `keep`. What a killed process left there an hour ago goes.

        Raises:
            FileTooLargeError: there is no room for one more, here or of this key.
        """
        self._check_room(key_id, 1)
        try:
            for folder in (self._folder, self._uploads):
                folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            _remove_leftovers(self._uploads)
            upload = self._uploads / uuid.uuid4().hex
            upload.touch(0o600)
        except OSError as error:
            raise _store_error(self._uploads, error) from error
        return upload

    def keep(self, upload: Path, filename: str, purpose: str, key_id: str | None) -> StoredFile:
        """Make the bytes at `upload`, which are moved, a file of this key that survives a power cut. Raises as
        `open_upload` does, as others may have come meanwhile."""
        file_id = f"file-{uuid.uuid4().hex}"
        try:
            self._check_room(key_id, upload.stat().st_size)
            with upload.open("rb") as stream:
                os.fsync(stream.fileno())
            os.replace(upload, self.path(file_id))
            sync_folder(self._folder)
        except OSError as error:
            raise _store_error(upload, error) from error
        return self.register(file_id, filename, purpose, key_id)

    def register(self, file_id: str, filename: str, purpose: str, key_id: str | None) -> StoredFile:
        """Make what is at `path(file_id)` a file of this key; twice is as once."""
        try:
            size_bytes = self.path(file_id).stat().st_size
        except OSError as error:
            raise _store_error(self.path(file_id), error) from error
        stored = StoredFile(file_id, key_id, filename[-MAX_NAME_LENGTH:], purpose, size_bytes, self._clock())
        self._store.put(stored)
        return stored

    def path(self, file_id: str) -> Path:
        """Where the bytes of a file are, or are to be written. The id is one of ours, not what a client says it is."""
        return self._folder / file_id

    def make_folder(self) -> None:
        """Have the folder of `path` be there. Raises OSError."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def get(self, file_id: str, key_id: str | None) -> StoredFile:
        """What is known of a file.

        Raises:
            FileUnknownError: this key has none by that id.
        """
        found = self._store.get(file_id, key_id)
        if found is None:
            raise FileUnknownError(f"there is no file {file_id[:80]!r}: it was deleted, or is not of this key")
        return found

    def list(
        self, key_id: str | None, purpose: str | None, after: str | None, limit: int, *, is_newest_first: bool
    ) -> tuple[StoredFile, ...]:
        """A key's files, those after the file `after` in the order asked for. Raises as `get` does."""
        last = None if after is None else self.get(after, key_id)
        return self._store.list(key_id, purpose, last, limit, is_newest_first=is_newest_first)

    def expires_at_s(self, file: StoredFile) -> float | None:
        """When a file goes by itself, in seconds since the epoch; None for never."""
        return None if math.isinf(self._ttl_s) else file.created_at_s + self._ttl_s

    def expired(self) -> tuple[StoredFile, ...]:
        """The files of all keys whose time is over."""
        return self._store.older_than(self._clock() - self._ttl_s)

    def _check_room(self, key_id: str | None, size_bytes: int) -> None:
        bounds = (
            ("here", self._store.totals(), MAX_FILES, MAX_TOTAL_BYTES),
            ("of this key", self._store.totals_of(key_id), MAX_KEY_FILES, MAX_KEY_BYTES),
        )
        for whose, found, most_files, most_bytes in bounds:
            if found.num_files >= most_files or found.size_bytes + size_bytes > most_bytes:
                raise FileTooLargeError(
                    f"there are {found.num_files:,} files of {found.size_bytes:,} bytes {whose}, and {most_files:,} of "
                    f"{most_bytes:,} are the most there may be: delete some"
                )

    def delete(self, file_id: str) -> None:
        """Forget a file of ours and remove its bytes."""
        self._store.delete(file_id)
        try:
            self.path(file_id).unlink(missing_ok=True)
        except OSError as error:
            raise _store_error(self.path(file_id), error) from error


def _remove_leftovers(uploads: Path) -> None:
    oldest_s = time.time() - _LEFTOVER_S
    for leftover in uploads.iterdir():
        with suppress(FileNotFoundError):
            if leftover.stat().st_mtime < oldest_s:
                leftover.unlink()


def _store_error(path: Path, error: OSError) -> StoreError:
    return StoreError(
        f"{path} cannot be read or written ({error.strerror or error}): free space there, or see that you may write it"
    )
