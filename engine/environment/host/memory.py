"""The checks of memory and swap."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from engine.environment.check import Check, CheckStatus, Finding, Shared, format_gb, worst
from engine.environment.context import CheckContext
from engine.environment.host.procfs import read_meminfo
from engine.environment.host.sizes import format_size, judge_bytes, wanted
from engine.environment.profile import GB, Bound, HostProfile
from engine.telemetry.cgroup import CgroupMemory, read_cgroup_memory

# Programs that slept for days are rightly swapped out: neither a small part nor little of it says anything.
SWAP_RATIO_WARN = 0.25
SWAP_USED_WARN_BYTES = GB

_UNREADABLE = Finding(CheckStatus.SKIP, "/proc/meminfo cannot be read here")


@dataclass(frozen=True)
class Memory:
    """The host's memory and swap, and what a cgroup makes of it. None is "cannot be told"."""

    total_bytes: int | None
    available_bytes: int | None
    swap_total_bytes: int | None
    swap_free_bytes: int | None
    limit: CgroupMemory | None


def memory_checks(context: CheckContext) -> tuple[Check, ...]:
    """`host.memory` and `host.swap`."""
    host, root = context.profile.host, context.root
    memory = Shared(lambda: read_memory(root))
    expected = f"{host.memory_available_gb.describe('GB')} available"
    if host.memory_total_gb != Bound():
        expected = f"{host.memory_total_gb.describe('GB')} in all; {expected}"
    swap_expected = f"at most {SWAP_RATIO_WARN:.0%} of swap or {format_gb(SWAP_USED_WARN_BYTES)} in use"
    return (
        Check("host.memory", "Memory", expected, lambda: judge_memory(memory(), host)),
        Check("host.swap", "Swap", swap_expected, lambda: judge_swap(memory())),
    )


def read_memory(root: Path = Path("/")) -> Memory:
    """The memory that this process lives in."""
    info = read_meminfo(root)
    return Memory(
        total_bytes=info.get("MemTotal"),
        available_bytes=info.get("MemAvailable"),
        swap_total_bytes=info.get("SwapTotal"),
        swap_free_bytes=info.get("SwapFree"),
        limit=read_cgroup_memory(root),
    )


def judge_memory(memory: Memory, host: HostProfile) -> Finding:
    """Capacity and what is available, each the smaller of what the host has and what a cgroup leaves."""
    if memory.total_bytes is None or memory.available_bytes is None:
        return _UNREADABLE
    limit = memory.limit or CgroupMemory(memory.total_bytes, memory.available_bytes)
    total, available = min(memory.total_bytes, limit.limit_bytes), min(memory.available_bytes, limit.available_bytes)
    total_status = judge_bytes(total, host.memory_total_gb)
    available_status = judge_bytes(available, host.memory_available_gb)
    total_wanted = wanted(host.memory_total_gb) * GB if total_status is not CheckStatus.PASS else 0.0
    available_wanted = wanted(host.memory_available_gb) * GB if available_status is not CheckStatus.PASS else 0.0
    remedies = []
    if max(total_wanted, available_wanted) > total:
        at = limit.limit_at if total < memory.total_bytes else None
        in_use = max(0, total - available)
        remedies.append(_more_memory(at, max(total_wanted, available_wanted + in_use if available_wanted else 0.0)))
    if available < available_wanted <= total:
        at = limit.available_at if available < memory.available_bytes else None
        remedies.append(_free_memory(at, available_wanted - available))
    observed = f"{format_gb(total)}, of which {format_gb(available)} available"
    if memory.limit is not None:
        observed += (
            f" (host {format_gb(memory.total_bytes)} and {format_gb(memory.available_bytes)}; "
            f"{limit.limit_at} is {format_gb(limit.limit_bytes)}"
            f", {limit.available_at} leaves {format_gb(limit.available_bytes)})"
        )
    facts = {
        "total_bytes": total,
        "limit_bytes": memory.limit.limit_bytes if memory.limit else None,
    }
    return Finding(worst((total_status, available_status)), observed, " ".join(remedies) or None, facts)


def judge_swap(memory: Memory) -> Finding:
    """Warn when much is swapped out: a model in there answers at the speed of the disk."""
    total, free = memory.swap_total_bytes, memory.swap_free_bytes
    if total is None or free is None:
        return _UNREADABLE
    facts = {"total_bytes": total}
    if total == 0:
        return Finding(
            CheckStatus.PASS, "no swap: memory that runs out ends a program instead of slowing all", None, facts
        )
    used = total - free
    observed = f"{format_size(used)} of {format_size(total)} in use ({used / total:.0%})"
    if used <= SWAP_USED_WARN_BYTES or used <= SWAP_RATIO_WARN * total:
        return Finding(CheckStatus.PASS, observed, None, facts)
    remedy = (
        "See whose memory is out (`grep VmSwap /proc/[0-9]*/status | sort -k2 -n | tail`) and stop what is not needed; "
        f"once {format_size(used)} of memory are available, bring the rest back with `swapoff -a && swapon -a`."
    )
    return Finding(CheckStatus.WARN, observed, remedy, facts)


def _more_memory(limit_at: str | None, wanted_bytes: float) -> str:
    if limit_at is None:
        return f"Add memory, or choose a machine with {format_gb(wanted_bytes)} or more."
    return f"Raise the memory limit ({limit_at}) to {format_gb(wanted_bytes)} or more: {_settings(wanted_bytes)}."


def _free_memory(limit_at: str | None, missing_bytes: float) -> str:
    if limit_at is None:
        return (
            f"Free {format_size(missing_bytes)} more: stop what takes most (`ps -eo pid,rss,args --sort=-rss | head`), "
            "or add memory."
        )
    return (
        f"Stop other programs of the same control group, or raise its limit ({limit_at}) by "
        f"{format_size(missing_bytes)}: docker `--memory`, in Kubernetes resources.limits.memory, in a systemd unit "
        f"{'MemoryHigh' if 'memory.high' in limit_at else 'MemoryMax'}=."
    )


def _settings(wanted_bytes: float) -> str:
    size_mib = -int(-wanted_bytes // 2**20)
    return (
        f"`docker update --memory {size_mib}m --memory-swap {size_mib}m NAME`, in Kubernetes resources.limits.memory: "
        f"{size_mib}Mi, in a systemd unit MemoryMax={size_mib}M"
    )
