"""What the control groups over this process leave it: memory, processors, tasks.

A container, a service manager or a batch system limits a process through control groups. They form a tree, and every
group from the process's own up to the root binds it, so the one that leaves the least counts, which need not be the
one with the smallest limit: a roomy parent may be filled by the neighbours. A container mostly sees its own part of
the tree only; what stands above it cannot be read and is not counted.

v1 and v2 are both understood. In a hybrid tree each controller is looked up where /proc/self/cgroup says it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from engine.telemetry.mounts import Mount, read_mounts

_UNLIMITED_BYTES = 1 << 60  # v1 writes "no limit" as the largest page-aligned 64-bit number


@dataclass(frozen=True)
class CgroupMemory:
    """The memory limits over this process.

    `limit_bytes` is the smallest of them, so all that can ever be taken; `available_bytes` is the least that any of
    them leaves now. `limit_at` and `available_at` name the two: `memory.max of /app.slice`.
    """

    limit_bytes: int
    available_bytes: int
    limit_at: str = ""
    available_at: str = ""


@dataclass(frozen=True)
class CgroupCpus:
    """The tightest processor quota: so many processors' time a period, 1.5 being one and a half."""

    num_cpus: float
    at: str


@dataclass(frozen=True)
class CgroupTasks:
    """The limit on threads and processes under which the fewest more can start."""

    limit: int
    available: int
    at: str


@dataclass(frozen=True)
class MemoryLevel:
    """One limit of one group. `used_bytes` leaves out what the kernel can reclaim; None is unknown, then the whole
    limit counts as left."""

    at: str
    limit_bytes: int
    used_bytes: int | None

    @property
    def available_bytes(self) -> int:
        """Bytes left under the limit; usage can be beyond it for a moment."""
        return max(0, self.limit_bytes - (self.used_bytes or 0))


@dataclass(frozen=True)
class _Group:
    path: str
    folder: Path
    is_v2: bool


# A limit and the usage that counts against it. Above `memory.high` nothing is killed, but every allocation waits for
# reclaim, and a model that is served so slowly is not served. `memsw` counts memory and swap together: it can bind
# first where much is swapped out.
_V1_LIMITS = (
    ("memory.limit_in_bytes", "memory.usage_in_bytes"),
    ("memory.memsw.limit_in_bytes", "memory.memsw.usage_in_bytes"),
)
_V2_LIMITS = (("memory.max", "memory.current"), ("memory.high", "memory.current"))
_V1_RECLAIMABLE = ("total_inactive_file", "total_active_file")
_V2_RECLAIMABLE = ("inactive_file", "active_file", "slab_reclaimable")


def read_cgroup_memory(root: Path = Path("/")) -> CgroupMemory | None:
    """The memory limits on the way from this process's cgroup up to the root; None where nothing limits it.

    `root` is the folder that holds `proc` and `sys`.

    What counts as free. A group's usage contains its page cache, which the kernel drops before it kills: a charge
    over the limit first reclaims inside the group. Both file lists count, inactive and active. Their names tell when
    a page is dropped, not whether: with the inactive list empty the kernel ages the active one. Weights that were
    hashed and then loaded have been read twice and are active throughout, so `usage - inactive_file`, the working set
    of Docker and Kubernetes, would call memory full that is not. The lists leave out what cannot be dropped: tmpfs
    and shared memory are on the lists of anonymous memory, locked pages on the unevictable one. v2 also tells
    `slab_reclaimable`, inodes and directory entries above all; v1 does not tell it apart, so there it counts as used.
    This is the kernel's own estimate for the host, MemAvailable (Documentation/filesystems/proc.rst), without the
    part that it holds back for the low watermarks, which belong to memory zones and not to groups. Like MemAvailable
    it promises no speed: dirty pages are written first, and mapped pages in use will be read again. Anonymous memory
    never counts as free, although swap could take it.
    """
    return tightest([level for group in _groups(root, "memory") for level in _read_levels(group)])


def tightest(levels: Sequence[MemoryLevel]) -> CgroupMemory | None:
    """The smallest limit, and the least that is left, among limits that all hold; None of none."""
    if not levels:
        return None
    smallest = min(levels, key=lambda level: level.limit_bytes)
    fullest = min(levels, key=lambda level: level.available_bytes)
    return CgroupMemory(smallest.limit_bytes, fullest.available_bytes, smallest.at, fullest.at)


def read_cgroup_cpus(root: Path = Path("/")) -> CgroupCpus | None:
    """The smallest processor quota over this process; None where there is none. Shares and weights are no limit."""
    quotas = [quota for group in _groups(root, "cpu") if (quota := _read_quota(group))]
    return min(quotas, key=lambda quota: quota.num_cpus, default=None)


def read_cgroup_tasks(root: Path = Path("/")) -> CgroupTasks | None:
    """The limit on tasks over this process that leaves the fewest; None where nothing limits them."""
    found = []
    for group in _groups(root, "pids"):
        limit, current = _read_int(group.folder / "pids.max"), _read_int(group.folder / "pids.current")
        if limit is not None:
            found.append(CgroupTasks(limit, max(0, limit - (current or 0)), f"pids.max of {group.path}"))
    return min(found, key=lambda tasks: tasks.available, default=None)


def _read_levels(group: _Group) -> Iterator[MemoryLevel]:
    limits, keys = (_V2_LIMITS, _V2_RECLAIMABLE) if group.is_v2 else (_V1_LIMITS, _V1_RECLAIMABLE)
    for limit_file, usage_file in limits:
        limit = _read_int(group.folder / limit_file)
        if limit is not None and limit < _UNLIMITED_BYTES:
            usage = _read_int(group.folder / usage_file)
            # The statistics lag behind the usage by up to two seconds, so the difference can be below zero.
            used = None if usage is None else max(0, usage - _read_reclaimable(group.folder, keys))
            yield MemoryLevel(f"{limit_file} of {group.path}", limit, used)


def _read_reclaimable(folder: Path, keys: Sequence[str]) -> int:
    pairs = (line.split() for line in (_read_text(folder / "memory.stat") or "").splitlines())
    return sum(int(pair[1]) for pair in pairs if len(pair) == 2 and pair[0] in keys)


def _read_quota(group: _Group) -> CgroupCpus | None:
    if group.is_v2:
        name, (quota, period) = "cpu.max", _read_pair(group.folder / "cpu.max")
    else:
        name = "cpu.cfs_quota_us"
        quota, period = _read_int(group.folder / name), _read_int(group.folder / "cpu.cfs_period_us")
    return CgroupCpus(quota / period, f"{name} of {group.path}") if quota and period else None


def _groups(root: Path, controller: str) -> tuple[_Group, ...]:
    """The groups over this process that a controller may limit and that can be seen here, topmost first."""
    found = _find_membership(root, controller)
    if found is None:
        return ()
    is_v2, path = found
    mount = _find_tree(read_mounts(root), controller, is_v2)
    top, below = root / mount.point.lstrip("/"), PurePosixPath(path)
    if below.is_relative_to(mount.source_root):
        below = PurePosixPath("/") / below.relative_to(mount.source_root)
    parts = [part for part in below.parts if part not in ("/", "..")]
    paths = [PurePosixPath(*parts[:depth]) for depth in range(len(parts) + 1)]
    groups = (_Group(str(PurePosixPath(mount.source_root) / part), top / part, is_v2) for part in paths)
    return tuple(group for group in groups if group.folder.is_dir())


def _find_membership(root: Path, controller: str) -> tuple[bool, str] | None:
    """Whether a controller is in the v2 tree, and this process's path in its tree."""
    unified: tuple[bool, str] | None = None
    for line in (_read_text(root / "proc/self/cgroup") or "").splitlines():
        hierarchy, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            return False, path
        if hierarchy == "0":
            unified = True, path
    return unified


def _find_tree(mounts: Sequence[Mount], controller: str, is_v2: bool) -> Mount:
    """Where the tree is mounted; the customary place where the mounts do not tell."""
    kind, usual = ("cgroup2", "/sys/fs/cgroup") if is_v2 else ("cgroup", f"/sys/fs/cgroup/{controller}")
    trees = (mount for mount in mounts if mount.kind == kind and (is_v2 or controller in mount.options))
    return next(trees, Mount("/", usual, kind, frozenset()))


def _read_pair(file: Path) -> tuple[int | None, int | None]:
    fields = (_read_text(file) or "").split()
    return (int(fields[0]), int(fields[1])) if len(fields) == 2 and fields[0].isdecimal() else (None, None)


def _read_int(file: Path) -> int | None:
    """None of a file that is missing or says `max` or `-1`."""
    text = (_read_text(file) or "").strip()
    return int(text) if text.isdecimal() else None


def _read_text(file: Path) -> str | None:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
