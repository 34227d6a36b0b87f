"""What has come of a batch's rows: two files that only grow, one of answers, one of errors, a line a row.

They are the output that the client gets, and also the only memory of which rows are done. So there is nothing that
could disagree with them: a row is done exactly when its line is whole in one of them. A line that a crash cut off is
taken away with all that follows it, and those rows are run again.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

from engine.weights.atomic import sync_folder


class Ledger:
    """The rows that are done, and the files that say so. One thread adds; `sync` may be called beside it.

    Raises:
        OSError: a file cannot be read or written.
    """

    def __init__(self, output: Path, errors: Path) -> None:
        self._done: set[str] = set()
        self._lock = threading.Lock()  # between `sync` and `close`
        self._is_closed = False
        self._output = _open(output)
        try:
            self._errors = _open(errors)
        except OSError:
            os.close(self._output)
            raise
        try:
            sync_folder(output.parent)
            self.num_completed = self._take_over(self._output)
            self.num_failed = self._take_over(self._errors)
        except OSError:
            self.close()
            raise

    def has(self, custom_id: str) -> bool:
        """Whether the row is done."""
        return custom_id in self._done

    def add(self, line: dict[str, Any], *, is_error: bool) -> None:
        """Write the line of the row that its `custom_id` names.

        Raises:
            ValueError: the row is done.
            OSError: it cannot be written; the row is not done, and nothing of it stays.
        """
        if self.has(line["custom_id"]):
            raise ValueError(f"the row {line['custom_id']!r} is done")
        _append(self._errors if is_error else self._output, json.dumps(line, separators=(",", ":")).encode() + b"\n")
        self._done.add(line["custom_id"])
        if is_error:
            self.num_failed += 1
        else:
            self.num_completed += 1

    def sync(self) -> None:
        """Have what was written survive a power cut; that of a process it survives anyway."""
        with self._lock:
            if not self._is_closed:
                os.fsync(self._output)
                os.fsync(self._errors)

    def close(self) -> None:
        """Let the files go, once."""
        with self._lock:
            self._is_closed = True
            os.close(self._output)
            os.close(self._errors)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _take_over(self, handle: int) -> int:
        """Note the whole lines that are there, up to the first that is none, and cut the file there."""
        kept_bytes = num_lines = 0
        for line in _whole_lines(handle):
            custom_id = _custom_id_of(line)
            if custom_id is None or custom_id in self._done:
                break
            self._done.add(custom_id)
            kept_bytes += len(line)
            num_lines += 1
        os.ftruncate(handle, kept_bytes)
        return num_lines


def _open(file: Path) -> int:
    return os.open(file, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)


def _append(handle: int, content: bytes) -> None:
    before_bytes = os.fstat(handle).st_size
    written_bytes = 0
    try:
        while written_bytes < len(content):
            written_bytes += os.write(handle, content[written_bytes:])
    except OSError:
        os.ftruncate(handle, before_bytes)
        raise


def _whole_lines(handle: int) -> Iterator[bytes]:
    with os.fdopen(os.dup(handle), "rb") as stream:
        stream.seek(0)
        for line in stream:
            if not line.endswith(b"\n"):
                return
            yield line


def _custom_id_of(line: bytes) -> str | None:
    """None for what this module did not write whole."""
    try:
        values = json.loads(line)
    except (ValueError, RecursionError):
        return None
    identifier = values.get("custom_id") if isinstance(values, dict) else None
    return identifier if isinstance(identifier, str) else None
