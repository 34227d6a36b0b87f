"""The memory limit that a container, a service manager or a batch system put on this process."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

_UNLIMITED_BYTES = 1 << 60  # v1 writes "no limit" as the largest page-aligned 64-bit number


@dataclass(frozen=True)
class CgroupMemory:
    """The tightest memory limit over this process; `used_bytes` leaves out reclaimable page cache."""

    limit_bytes: int
    used_bytes: int | None

    @property
    def available_bytes(self) -> int:
        """Bytes left under the limit; the whole limit where the usage cannot be read."""
        return max(0, self.limit_bytes - (self.used_bytes or 0))


@dataclass(frozen=True)
class _Layout:
    mount: str
    limit_file: str
    usage_file: str
    reclaimable_key: str


_V1 = _Layout("sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
_V2 = _Layout("sys/fs/cgroup", "memory.max", "memory.current", "inactive_file")


def read_cgroup_memory(root: Path = Path("/")) -> CgroupMemory | None:
    """The smallest limit on the way from this process's cgroup up to the root; None where nothing limits it.

    cgroup v1 and v2 are both understood. `root` is the folder that holds `proc` and `sys`. Inside a container
    the path in /proc/self/cgroup can be the host's and missing here; the levels that do exist are read.
    """
    found = _find_layout(root / "proc/self/cgroup")
    if found is None:
        return None
    layout, path = found
    top = root / layout.mount
    parts = [part for part in PurePosixPath(path).parts if part not in ("/", "..")]
    folders = [top.joinpath(*parts[:depth]) for depth in range(len(parts) + 1)]
    limits = [(limit, folder) for folder in folders if (limit := _read_limit(folder / layout.limit_file))]
    if not limits:
        return None
    limit_bytes, folder = min(limits)
    return CgroupMemory(limit_bytes, _read_used(folder, layout))


def _find_layout(membership: Path) -> tuple[_Layout, str] | None:
    """Which cgroup version counts memory here, and this process's path in it."""
    unified: tuple[_Layout, str] | None = None
    for line in (_read_text(membership) or "").splitlines():
        hierarchy, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            return _V1, path
        if hierarchy == "0":
            unified = _V2, path
    return unified


def _read_limit(file: Path) -> int | None:
    value = _read_int(file)
    return None if value is None or value >= _UNLIMITED_BYTES else value


def _read_used(folder: Path, layout: _Layout) -> int | None:
    usage = _read_int(folder / layout.usage_file)
    if usage is None:
        return None
    stat = dict(line.split(" ", 1) for line in (_read_text(folder / "memory.stat") or "").splitlines())
    return max(0, usage - int(stat.get(layout.reclaimable_key, 0)))


def _read_int(file: Path) -> int | None:
    text = (_read_text(file) or "").strip()
    return int(text) if text.isdecimal() else None


def _read_text(file: Path) -> str | None:
    try:
        return file.read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
