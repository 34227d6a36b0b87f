"""The file systems that this process sees mounted, and the one that holds a folder."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath


@dataclass(frozen=True)
class Mount:
    """One line of /proc/self/mountinfo, as proc_pid_mountinfo(5) describes it.

    `source_root` is the folder inside the file system that stands at `point`; `options` are the mount's own and the
    file system's together (`ro`, or the controllers of a cgroup v1 tree).
    """

    source_root: str
    point: str
    kind: str
    options: frozenset[str]


def read_mounts(root: Path = Path("/")) -> tuple[Mount, ...]:
    """All mounts in the kernel's order, later ones over earlier ones; none where there is no /proc."""
    try:
        text = (root / "proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return ()
    return tuple(_parse(line) for line in text.splitlines() if " - " in line)


def find_mount(folder: Path, mounts: Iterable[Mount]) -> Mount | None:
    """The mount that holds `folder`, an absolute path without links; the later of two at one point."""
    path = PurePosixPath(folder)
    holding = [mount for mount in mounts if path.is_relative_to(mount.point)]
    deepest = max((len(PurePosixPath(mount.point).parts) for mount in holding), default=0)
    return next((mount for mount in reversed(holding) if len(PurePosixPath(mount.point).parts) == deepest), None)


def _parse(line: str) -> Mount:
    mounted, _, file_system = line.partition(" - ")
    fields, (kind, _, super_options) = mounted.split(" "), file_system.split(" ", 2)
    options = frozenset(fields[5].split(",")) | frozenset(super_options.split(","))
    return Mount(_unescape(fields[3]), _unescape(fields[4]), kind, options)


def _unescape(text: str) -> str:
    """Blanks, tabs, line ends and backslashes are written as three octal digits."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)
