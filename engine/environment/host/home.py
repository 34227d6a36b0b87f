"""The check of the console's folder: can it be written, and does what is written there stay."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from engine.environment.check import Check, CheckStatus, Finding
from engine.environment.context import CheckContext
from engine.telemetry.mounts import Mount, find_mount, read_mounts

# SQLite's write-ahead log is shared memory between its users, which no file system over a network offers
# (https://www.sqlite.org/wal.html, "Overview").
NETWORK_KINDS = frozenset(
    ("nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "lustre", "glusterfs", "beegfs", "gpfs")
)
FUSE_NETWORK_KINDS = frozenset(("fuse.sshfs", "fuse.glusterfs", "fuse.ceph", "fuse.s3fs", "fuse.gcsfuse"))
PSEUDO_KINDS = frozenset({"proc", "sysfs", "devpts", "cgroup", "cgroup2", "securityfs", "debugfs", "tracefs"})
MEMORY_KINDS = frozenset(("tmpfs", "ramfs"))
IMAGE_KINDS = frozenset(("overlay", "aufs"))


@dataclass(frozen=True)
class Home:
    """The console's folder, seen at the nearest folder that exists; `mount` is None where it cannot be told."""

    folder: Path
    existing: Path
    is_writable: bool
    mount: Mount | None
    is_file: bool = False


def home_check(context: CheckContext) -> Check:
    """`host.home`."""
    home, root = context.home, context.root
    expected = "writable, on a local disk that outlasts restarts"
    return Check("host.home", "Console's folder", expected, lambda: judge_home(read_home(home, root)))


def read_home(folder: Path, root: Path = Path("/")) -> Home:
    """The folder as this user sees it; nothing is written."""
    resolved = folder.absolute().resolve()
    existing = next(path for path in (resolved, *resolved.parents) if os.path.lexists(path))
    mount = find_mount(existing, read_mounts(root))
    is_folder = existing.is_dir()
    is_storage = mount is None or mount.kind not in PSEUDO_KINDS  # root may "write" to /proc, and nothing is kept
    is_writable = is_folder and is_storage and os.access(existing, os.W_OK | os.X_OK)
    return Home(folder, existing, is_writable, mount, not is_folder)


def judge_home(home: Home) -> Finding:
    """Fail where nothing can be written, warn where it does not stay or the stores are not safe."""
    kind = home.mount.kind if home.mount else None
    where = f"{home.folder}" + ("" if home.existing == home.folder else f" (read at {home.existing})")
    observed = f"{where} on {kind or 'an unknown file system'}"
    facts = {"folder": str(home.folder), "file_system": kind}
    if home.is_file:
        remedy = f"Move the file {home.existing} away, or set CONSOLE_HOME to a folder."
        return Finding(CheckStatus.FAIL, f"{home.existing} is not a folder", remedy, facts)
    if not home.is_writable:
        is_read_only = home.mount is not None and "ro" in home.mount.options
        remedy = (
            f"Remount it for writing (`mount -o remount,rw {home.mount.point}`)"
            if home.mount is not None and is_read_only
            else f"Give it to this user (`install -d -o {os.geteuid()} {home.folder}` as root)"
        )
        observed += ", mounted read-only" if is_read_only else ", not writable for this user"
        return Finding(CheckStatus.FAIL, observed, f"{remedy}, or set CONSOLE_HOME to a writable folder.", facts)
    if remedy := _why_not(kind):
        return Finding(CheckStatus.WARN, observed, remedy, facts)
    return Finding(CheckStatus.PASS, f"{observed}, writable", facts=facts)


def _why_not(kind: str | None) -> str:
    if kind in NETWORK_KINDS | FUSE_NETWORK_KINDS:
        return (
            f"SQLite and DuckDB files are not safe on {kind}: set CONSOLE_HOME to a folder on a local disk (and "
            "DATABASE_URL to a PostgreSQL server, if several replicas are to share the state)."
        )
    if kind in MEMORY_KINDS:
        return f"What is on {kind} takes memory and is gone after a restart: set CONSOLE_HOME to a folder on a disk."
    if kind in IMAGE_KINDS:
        return (
            "Keys, history and weights go when the container does: mount a volume and point CONSOLE_HOME at it "
            "(`docker run -v console:/data -e CONSOLE_HOME=/data ...`)."
        )
    return ""
