"""The checks of the kernel's settings for virtual memory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from engine.environment.check import Check, CheckStatus, Finding
from engine.environment.context import CheckContext
from engine.environment.host.procfs import read_meminfo, read_number
from engine.environment.host.sizes import format_size, wanted
from engine.environment.profile import Bound

# Documentation/mm/overcommit-accounting.rst
MODES = {0: "heuristic", 1: "always", 2: "never"}
_NEVER = 2
_KEEP = "To keep it over a restart, put the same setting into /etc/sysctl.d/60-console.conf."


@dataclass(frozen=True)
class Overcommit:
    """`commit_limit_bytes` is all that may be promised to programs in mode 2, `committed_bytes` what has been."""

    mode: int | None
    total_bytes: int | None
    commit_limit_bytes: int | None
    committed_bytes: int | None


def kernel_checks(context: CheckContext) -> tuple[Check, ...]:
    """`host.overcommit` and `host.max_map_count`."""
    bound, root = context.profile.host.max_map_count, context.root
    return (
        Check(
            "host.overcommit",
            "Memory overcommit",
            "vm.overcommit_memory 0 or 1; with 2 a commit limit of the whole memory",
            lambda: judge_overcommit(read_overcommit(root)),
        ),
        Check(
            "host.max_map_count",
            "Memory maps of a process",
            bound.describe(),
            lambda: judge_max_map_count(read_number(root / "proc/sys/vm/max_map_count"), bound),
        ),
    )


def read_overcommit(root: Path = Path("/")) -> Overcommit:
    """What the kernel promises programs."""
    info = read_meminfo(root)
    mode = read_number(root / "proc/sys/vm/overcommit_memory")
    return Overcommit(mode, info.get("MemTotal"), info.get("CommitLimit"), info.get("Committed_AS"))


def judge_overcommit(overcommit: Overcommit) -> Finding:
    """Warn where the kernel promises less than there is: torch and CUDA reserve far more than they touch, and are
    refused while memory is free."""
    mode = overcommit.mode
    if mode is None:
        return Finding(CheckStatus.SKIP, "/proc/sys/vm/overcommit_memory cannot be read here")
    observed, facts = f"vm.overcommit_memory = {mode} ({MODES.get(mode, 'unknown')})", {"mode": mode}
    limit, total = overcommit.commit_limit_bytes, overcommit.total_bytes
    if mode != _NEVER or limit is None or total is None:
        return Finding(CheckStatus.PASS, observed, facts=facts)
    observed += f", {format_size(limit)} may be promised with {format_size(total)} of memory"
    if overcommit.committed_bytes is not None:
        observed += f", {format_size(overcommit.committed_bytes)} are"
    facts["commit_limit_bytes"] = limit
    if limit >= total:
        return Finding(CheckStatus.PASS, observed, facts=facts)
    remedy = (
        "Run `sysctl -w vm.overcommit_memory=0`, or where 2 must stay `sysctl -w vm.overcommit_ratio=100`, as root on "
        f"the host. {_KEEP}"
    )
    return Finding(CheckStatus.WARN, observed, remedy, facts)


def judge_max_map_count(number: int | None, bound: Bound) -> Finding:
    """Every shard of a model that is mapped and every block of CUDA's and torch's allocators takes maps."""
    if number is None:
        return Finding(CheckStatus.SKIP, "/proc/sys/vm/max_map_count cannot be read here")
    status, facts = bound.judge(number), {"max_map_count": number}
    observed = f"vm.max_map_count = {number:,}"
    if status is CheckStatus.PASS:
        return Finding(status, observed, facts=facts)
    remedy = f"Run `sysctl -w vm.max_map_count={wanted(bound):.0f}` as root on the host. {_KEEP}"
    return Finding(status, observed, remedy, facts)
