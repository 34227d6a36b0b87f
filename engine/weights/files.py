"""The files of a model as plain data, and the record of them beside its folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from engine.errors import WeightsError
from engine.weights.atomic import write_atomically
from engine.weights.containment import check_name


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One file: its path within the model's folder, and its SHA-256 in hex, None where nobody computed it."""

    path: str
    size_bytes: int
    sha256: str | None


class Readable(Protocol):
    """Bytes that are read onward."""

    def read(self, num_bytes: int, /) -> bytes:
        """The next `num_bytes`, fewer only at the end."""


@dataclass(frozen=True, slots=True)
class OpenFile:
    """A file at its beginning, on a disk or at the hub: what it is called in messages, its whole size, and what is
    advised where it is damaged."""

    name: str
    size_bytes: int
    stream: Readable
    remedy: str = "fetch it again"

    def __str__(self) -> str:
        return self.name


def read_json(file: Path) -> Any:
    """The file's JSON; None where there is no such file or it is not JSON."""
    try:
        return json.loads(file.read_bytes())
    except (FileNotFoundError, NotADirectoryError, ValueError, RecursionError):
        return None


def write_record(file: Path, name: str, entries: Sequence[FileEntry]) -> None:
    """Keep beside a folder what it is called and which files it holds."""
    record = {"name": name, "files": [asdict(entry) for entry in entries]}
    write_atomically(file, json.dumps(record, indent=1).encode())


def read_record(file: Path) -> tuple[str, tuple[FileEntry, ...]] | None:
    """What `write_record` wrote; None where it is missing or not whole."""
    data = read_json(file)
    try:
        return str(data["name"]), tuple(_parse_entry(item, str(file)) for item in data["files"])
    except (TypeError, KeyError, ValueError, WeightsError):
        return None


def _parse_entry(item: Any, owner: str) -> FileEntry:
    sha256 = item["sha256"]
    return FileEntry(
        check_name(str(item["path"]), owner), int(item["size_bytes"]), None if sha256 is None else str(sha256)
    )
