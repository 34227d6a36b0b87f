"""Installed distributions and what they ask for, read from their metadata; none of them is imported."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name


@dataclass(frozen=True)
class Distribution:
    """`name` is canonical. `unreadable` are requirements that are not written by the rules of PEP 508."""

    name: str
    version: str
    requires: tuple[Requirement, ...] = ()
    unreadable: tuple[str, ...] = ()


@dataclass(frozen=True)
class Installed:
    """Distributions by canonical name. `leftovers` are folders that an interrupted installation left behind."""

    distributions: Mapping[str, Distribution]
    leftovers: tuple[str, ...] = ()

    @property
    def versions(self) -> dict[str, str]:
        """Versions by canonical name, sorted by name."""
        return {name: self.distributions[name].version for name in sorted(self.distributions)}


def read_installed(path: Sequence[str] | None = None) -> Installed:
    """Everything installed on `path` (default: `sys.path`). The first of a name wins, as in imports."""
    found: dict[str, Distribution] = {}
    leftovers = []
    for entry in metadata.distributions() if path is None else metadata.distributions(path=list(path)):
        folder = _folder(entry)
        distribution = None if folder.name.startswith("~") else _read(entry)
        if distribution is not None:
            found.setdefault(distribution.name, distribution)
        elif folder.name and not _is_hidden(folder):
            leftovers.append(str(folder))
    return Installed(found, tuple(leftovers))


def package_version(name: str) -> str | None:
    """An installed distribution's version; None where it is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def parse_requirements(lines: Sequence[str]) -> tuple[tuple[Requirement, ...], tuple[str, ...]]:
    """The requirements, and the lines that are none."""
    read, unreadable = [], []
    for line in lines:
        try:
            read.append(Requirement(line))
        except InvalidRequirement:
            unreadable.append(line)
    return tuple(read), tuple(unreadable)


def _folder(entry: metadata.Distribution) -> Path:
    """The metadata's folder, which the public interface does not name; pip marks what it is about to remove by `~`."""
    return Path(str(getattr(entry, "_path", "")))


def _is_hidden(folder: Path) -> bool:
    """Is it whole, for all that can be told, and only not for this user to read."""
    return folder.exists() and not os.access(folder / "METADATA", os.R_OK) and (folder / "METADATA").exists()


def _read(entry: metadata.Distribution) -> Distribution | None:
    """None for a folder without a name and a version, or whose text cannot be read."""
    try:
        headers = entry.metadata
    except (OSError, UnicodeDecodeError):
        return None
    if "Name" not in headers or "Version" not in headers:
        return None
    lines = headers.get_all("Requires-Dist")
    if lines is None and entry.read_text("requires.txt"):
        lines = entry.requires  # an egg keeps them in a file of their own
    return Distribution(canonicalize_name(headers["Name"]), headers["Version"], *parse_requirements(lines or ()))
