"""What a model consists of: path, length and SHA-256 of every file, and how two such lists differ.

A manifest's text is canonical: the same files give the same bytes, so that it can be compared and signed.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.errors import WeightsError
from engine.weights.atomic import TEMPORARY_PREFIX
from engine.weights.containment import check_name, resolve_inside
from engine.weights.digests import DigestMemo, Progress, hash_files
from engine.weights.strict_json import parse_json, shorten

SIGNATURE_NAME = "model.sig"
# What tools keep beside a model and no loader reads.
IGNORED = (SIGNATURE_NAME, ".git", ".gitattributes", ".github", ".gitignore", ".cache")
# The name of a model that is a single file, as OpenSSF's format has it.
SINGLE_FILE = "."

_VERSION = 1
_MAX_FILES = 100_000
_MAX_MANIFEST_BYTES = 64 << 20
_SHA256 = re.compile(r"[0-9a-f]{64}")
_STAGE = "checking files"


@dataclass(frozen=True, slots=True, order=True)
class FileDigest:
    """One file of a model; `path` is relative to its folder, `sha256` is hex."""

    path: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """The files of a model in the order of their paths."""

    files: tuple[FileDigest, ...]

    @property
    def digests(self) -> dict[str, str]:
        """SHA-256 by path."""
        return {file.path: file.sha256 for file in self.files}

    @property
    def size_bytes(self) -> int:
        """Of all files together."""
        return sum(file.size_bytes for file in self.files)

    @property
    def sha256(self) -> str:
        """One digest for the whole model: of the manifest's text."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def to_json(self) -> str:
        """The canonical text."""
        return canonical_json(
            {
                "files": [{"path": f.path, "sha256": f.sha256, "size_bytes": f.size_bytes} for f in self.files],
                "version": _VERSION,
            }
        )


@dataclass(frozen=True, slots=True)
class Changes:
    """How a model differs from what was expected of it, by path."""

    changed: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    added: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.changed or self.missing or self.added)

    def __str__(self) -> str:
        """`config.json changed, model.safetensors is missing, 3 files are new (a, b, ...)`."""
        said = (
            _say(self.changed, "changed", "changed"),
            _say(self.missing, "is missing", "are missing"),
            _say(self.added, "is new", "are new"),
        )
        return ", ".join(part for part in said if part) or "nothing changed"


def canonical_json(value: Any) -> str:
    """ASCII, sorted keys, no spaces: the same value always gives the same bytes."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def list_files(root: Path, link_roots: Sequence[Path] = ()) -> dict[str, Path]:
    """Every file of the model by its path in the folder, with where it really is. A single file is its own model.

    Raises:
        WeightsError: there is nothing, a link leads out of the folder and of `link_roots`, or something is no file.
    """
    if root.is_file():
        return {SINGLE_FILE: root.resolve()}
    if not root.is_dir():
        raise WeightsError(f"{root} is not there: give the path of a model folder or of a .gguf file")
    found: dict[str, Path] = {}
    for place, folders, names in os.walk(root, onerror=_refuse):
        inside = Path(place).relative_to(root)
        folders[:] = sorted(name for name in folders if not _is_ignored(inside, name))
        for name in folders:
            if (Path(place) / name).is_symlink():
                raise WeightsError(f"{Path(place) / name} links to a folder: put the files themselves there")
        for name in names:
            if not _is_ignored(inside, name):
                path = check_name((inside / name).as_posix(), root)
                found[path] = _plain_file(root, path, link_roots)
        if len(found) > _MAX_FILES:
            raise WeightsError(f"{root} holds more than {_MAX_FILES:,} files: give the folder of one model")
    return dict(sorted(found.items()))


def make_manifest(
    root: Path,
    on_progress: Progress,
    memo: DigestMemo | None = None,
    link_roots: Sequence[Path] = (),
    num_threads: int | None = None,
) -> Manifest:
    """The manifest of the model as it is now. `memo` spares reading the files that look untouched; without it every
    byte is read. `on_progress("checking files", fraction)` may raise to end it.

    Raises:
        WeightsError: a file cannot be read, or see `list_files`.
    """
    files = list_files(root, link_roots)
    known = memo.known(list(files.values())) if memo else {}
    hashed = hash_files([file for file in files.values() if file not in known], on_progress, _STAGE, num_threads)
    if memo and hashed:
        memo.remember(hashed)
    digests = {**known, **{file: digest for file, (_, digest) in hashed.items()}}
    sizes = {file: hashed[file][0].size_bytes if file in hashed else file.stat().st_size for file in digests}
    return Manifest(tuple(FileDigest(path, sizes[file], digests[file]) for path, file in files.items()))


def parse_manifest(raw: bytes | str, where: Path | str = "the manifest") -> Manifest:
    """The manifest that `raw` holds; `where` is what messages call it.

    Raises:
        WeightsError: it is no manifest, or one that names files it must not.
    """
    try:
        if len(raw) > _MAX_MANIFEST_BYTES:
            raise ValueError(f"it has more than {_MAX_MANIFEST_BYTES:,} bytes")
        table = parse_json(raw)
        if not isinstance(table, dict) or set(table) != {"files", "version"} or table["version"] != _VERSION:
            raise ValueError(f"it is not a table of version {_VERSION} with files")
        if not isinstance(table["files"], list) or len(table["files"]) > _MAX_FILES:
            raise ValueError(f"its files are not a list of {_MAX_FILES:,} at most")
        files = sorted(_parse_file(entry, where) for entry in table["files"])
        if len({file.path for file in files}) != len(files):
            raise ValueError("it names a file twice")
    except ValueError as error:
        raise WeightsError(
            f"{where} cannot be read as a manifest: {error}; trust the model again to replace it"
        ) from error
    return Manifest(tuple(files))


def compare(expected: Mapping[str, str], actual: Mapping[str, str]) -> Changes:
    """What is different in `actual`, both SHA-256 by path."""
    return Changes(
        changed=tuple(sorted(path for path in expected.keys() & actual.keys() if expected[path] != actual[path])),
        missing=tuple(sorted(expected.keys() - actual.keys())),
        added=tuple(sorted(actual.keys() - expected.keys())),
    )


def _parse_file(entry: Any, where: Path | str) -> FileDigest:
    if not isinstance(entry, dict) or set(entry) != {"path", "sha256", "size_bytes"}:
        raise ValueError("a file of it does not have path, sha256 and size_bytes")
    path, size, digest = entry["path"], entry["size_bytes"], entry["sha256"]
    if path != SINGLE_FILE:
        check_name(path, where)
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size < 1 << 63:
        raise ValueError(f"the length of {shorten(path)!r} is not a count of bytes")
    if not isinstance(digest, str) or not _SHA256.fullmatch(digest):
        raise ValueError(f"the SHA-256 of {shorten(path)!r} is not 64 hexadecimal digits")
    return FileDigest(path, size, digest)


def _is_ignored(inside: Path, name: str) -> bool:
    return name.startswith(TEMPORARY_PREFIX) or (inside == Path() and name in IGNORED)


def _plain_file(root: Path, path: str, link_roots: Sequence[Path]) -> Path:
    real = resolve_inside(root, path, link_roots)
    try:
        mode = real.stat().st_mode
    except OSError as error:
        raise WeightsError(f"{root / path} cannot be read: {error.strerror or error}; fetch it again") from error
    if not stat.S_ISREG(mode):
        raise WeightsError(f"{root / path} is not a plain file: a model holds only files and folders, take it away")
    return real


def _refuse(error: OSError) -> None:
    raise WeightsError(f"{error.filename} cannot be read: {error.strerror or error}")


def _say(paths: tuple[str, ...], one: str, many: str) -> str:
    if not paths:
        return ""
    if len(paths) == 1:
        return f"{shorten(paths[0])} {one}"
    named = ", ".join(shorten(path) for path in paths[:3])
    return f"{len(paths)} files {many} ({named}{', ...' if len(paths) > 3 else ''})"
