"""The checks of disk space: at the weights, and in shared memory. Where images land is for the containers' checks."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path

from engine.environment.check import Check, CheckStatus, Fact, Finding, worst
from engine.environment.context import CheckContext
from engine.environment.host.sizes import format_size, judge_bytes, wanted
from engine.environment.profile import GB, Bound


@dataclass(frozen=True)
class Space:
    """What an unprivileged process can still write at `folder`, read at `existing`, the nearest folder that is there
    and that this user may look at.

    Inodes are None on file systems that do not count them (btrfs says 0).
    """

    folder: Path
    existing: Path
    total_bytes: int
    free_bytes: int
    num_inodes_free: int | None


def disk_checks(context: CheckContext) -> tuple[Check, ...]:
    """`host.disk` and `host.shm`."""
    host, root, weights = context.profile.host, context.root, context.home / "weights"
    disk_expected = f"{host.disk_free_gb.describe('GB')} free; inodes {host.inodes_free.describe()}"

    def check_disk() -> Finding:
        return judge_space(read_space(weights), weights, host.disk_free_gb, host.inodes_free, _WEIGHTS_REMEDY)

    def check_shm() -> Finding:
        return judge_shm(read_space(root / "dev/shm") if (root / "dev/shm").is_dir() else None, host.shm_gb)

    return (
        Check("host.disk", "Disk for weights and stores", disk_expected, check_disk),
        Check("host.shm", "Shared memory", host.shm_gb.describe("GB"), check_shm),
    )


def read_space(folder: Path) -> Space | None:
    """The space at a folder that may not exist yet, or not be open to this user; None where it cannot be read."""
    for existing in (folder, *folder.absolute().parents):
        try:
            stat = os.statvfs(existing)
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            continue
        except OSError:
            return None
        inodes = stat.f_favail if stat.f_files else None
        return Space(folder, existing, stat.f_blocks * stat.f_frsize, stat.f_bavail * stat.f_frsize, inodes)
    return None


_WEIGHTS_REMEDY = "Otherwise set CONSOLE_HOME to a folder on a larger disk."


def judge_space(
    space: Space | None, folder: Path, free_gb: Bound, inodes_free: Bound, or_else: str, to_free: str | None = None
) -> Finding:
    """Free bytes and free inodes against their bounds. `to_free` says how to make room, by default where to look for
    what is large; `or_else` is the remedy beside that."""
    if space is None:
        return Finding(CheckStatus.FAIL, f"{folder} cannot be read", f"Let this user read {folder}. {or_else}")
    bytes_status, inodes_status = judge_bytes(space.free_bytes, free_gb), CheckStatus.PASS
    observed, remedies = (
        f"{format_size(space.free_bytes)} free of {format_size(space.total_bytes)} at {space.existing}",
        [],
    )
    if bytes_status is not CheckStatus.PASS:
        remedies += [_make_room(space, wanted(free_gb) * GB, to_free), or_else]
    if space.num_inodes_free is not None:
        observed += f", {space.num_inodes_free:,} inodes free"
        inodes_status = inodes_free.judge(space.num_inodes_free)
    if inodes_status is not CheckStatus.PASS:
        remedies.append(_free_inodes(space, wanted(inodes_free)))
    facts: dict[str, Fact] = {
        "folder": str(folder),
        "total_bytes": space.total_bytes,
        "free_bytes": space.free_bytes,
        "inodes_free": space.num_inodes_free,
    }
    return Finding(worst((bytes_status, inodes_status)), observed, " ".join(remedies) or None, facts)


def _make_room(space: Space, wanted_bytes: float, to_free: str | None) -> str:
    if wanted_bytes > space.total_bytes:
        return f"{format_size(wanted_bytes)} do not fit on this disk of {format_size(space.total_bytes)}."
    to_free = to_free or f"`du -xh --max-depth=2 {space.existing} | sort -h | tail` shows what is large"
    return f"Free {format_size(wanted_bytes - space.free_bytes)} more at {space.existing} ({to_free})."


def _free_inodes(space: Space, num_wanted: float) -> str:
    return (
        f"Delete small files until {num_wanted:,.0f} inodes are free (`du --inodes -x --max-depth=2 {space.existing} | "
        "sort -n | tail` shows where they are), or make the file system anew with more (`mkfs.ext4 -N`)."
    )


def judge_shm(space: Space | None, bound_gb: Bound) -> Finding:
    """Processes that share tensors, NCCL's among them, do it in /dev/shm; when it is full they die of a bus error."""
    size = math.ceil(wanted(bound_gb) * GB / 2**20)
    grow = (
        f"Start the container with `--shm-size={size}m` (in Kubernetes an emptyDir of medium Memory at /dev/shm); on a "
        f"host `mount -o remount,size={size}M /dev/shm`."
    )
    if space is None:
        status = bound_gb.judge(0)
        remedy = None if status is CheckStatus.PASS else f"Mount a tmpfs at /dev/shm. {grow}"
        return Finding(status, "there is no /dev/shm", remedy, {"total_bytes": 0})
    observed = f"{format_size(space.total_bytes)} at /dev/shm, {format_size(space.free_bytes)} free"
    facts = {"total_bytes": space.total_bytes}
    status = judge_bytes(space.total_bytes, bound_gb)
    if status is not CheckStatus.PASS:
        return Finding(status, observed, grow, facts)
    status = judge_bytes(space.free_bytes, bound_gb)
    if status is CheckStatus.PASS:
        return Finding(status, observed, facts=facts)
    remedy = "Remove what ended programs left behind (`ls -lS /dev/shm`; `fuser /dev/shm/*` shows what is in use)."
    return Finding(status, observed, remedy, facts)
