"""The checks of what one process may have: open files, threads."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path

from engine.environment.check import Check, CheckStatus, Finding
from engine.environment.context import CheckContext
from engine.environment.host.procfs import read_limits, read_text
from engine.environment.host.sizes import wanted
from engine.environment.profile import Bound
from engine.telemetry.cgroup import CgroupTasks, read_cgroup_tasks

# torch keeps a thread a core for work inside an operation, one between operations and one in OpenMP; tokenizers keep
# another. The rest is the server's pool, DuckDB's, CUDA's, and processes such as a compiler's workers.
THREADS_PER_CORE = 4
THREADS_BESIDES = 256


@dataclass(frozen=True)
class OpenFiles:
    """How many files this process may hold open, sockets included; infinite is unlimited."""

    soft: float
    hard: float


@dataclass(frozen=True)
class Tasks:
    """How many threads can start. `user_limit` is the user's limit on all of its own, of which there are
    `num_user_threads`; None where it does not bind (root) or cannot be read."""

    num_needed: int
    group: CgroupTasks | None
    user_limit: float | None
    num_user_threads: int = 0

    @property
    def user_left(self) -> float | None:
        """Threads that the user's limit still allows."""
        return None if self.user_limit is None else self.user_limit - self.num_user_threads


def limit_checks(context: CheckContext) -> tuple[Check, ...]:
    """`host.open_files` and `host.tasks`."""
    bound, root = context.profile.host.open_files, context.root
    num_needed = THREADS_BESIDES + THREADS_PER_CORE * (os.cpu_count() or 1)
    return (
        Check(
            "host.open_files", "Open files", bound.describe(), lambda: judge_open_files(read_open_files(root), bound)
        ),
        Check(
            "host.tasks",
            "Threads and processes",
            f"room for {num_needed:,} more",
            lambda: judge_tasks(read_tasks(num_needed, root)),
        ),
    )


def read_open_files(root: Path = Path("/")) -> OpenFiles | None:
    """The limits of this process; None where they cannot be read."""
    found = read_limits(root).get("Max open files")
    return OpenFiles(*found) if found else None


def read_tasks(num_needed: int, root: Path = Path("/")) -> Tasks:
    """The limits on threads over this process."""
    user_limit = read_limits(root).get("Max processes", (None, None))[0] if os.geteuid() else None
    is_bound = user_limit is not None and math.isfinite(user_limit)
    num_threads = count_threads(root, os.getuid()) if is_bound else 0
    return Tasks(num_needed, read_cgroup_tasks(root), user_limit, num_threads)


def count_threads(root: Path, user_id: int) -> int:
    """The threads of all processes of a user; those that end meanwhile are left out."""
    texts = (read_text(file) or "" for file in (root / "proc").glob("[0-9]*/status"))
    states = (dict(line.split(":", 1) for line in text.splitlines() if ":" in line) for text in texts)
    owned = (state for state in states if state.get("Uid", "").split()[:1] == [str(user_id)])
    return sum(int(state.get("Threads", 0)) for state in owned)


def judge_open_files(files: OpenFiles | None, bound: Bound) -> Finding:
    """The soft limit, which is the one that holds. Every request holds a socket, every stream of a browser another."""
    if files is None:
        return Finding(CheckStatus.SKIP, "/proc/self/limits cannot be read here")
    observed = f"at most {_show(files.soft)} (hard limit {_show(files.hard)})"
    facts = {"soft": _fact(files.soft), "hard": _fact(files.hard)}
    status = bound.judge(files.soft)
    if status is CheckStatus.PASS:
        return Finding(status, observed, facts=facts)
    number = f"{wanted(bound):.0f}"
    elsewhere = f"LimitNOFILE={number} in a systemd unit, docker `--ulimit nofile={number}:{number}`"
    if files.hard >= wanted(bound):
        remedy = f"Run `ulimit -n {number}` in the shell that starts the console; or {elsewhere}."
    else:
        remedy = (
            f"Raise the hard limit of {_show(files.hard)} too: {elsewhere}, or `* - nofile {number}` in "
            "/etc/security/limits.conf and a new login."
        )
    return Finding(status, observed, remedy, facts)


def judge_tasks(tasks: Tasks) -> Finding:
    """Warn where fewer threads can start than a loaded model's process has: the symptom is "Resource temporarily
    unavailable" under load."""
    group, user_limit, user_left = tasks.group, tasks.user_limit, tasks.user_left
    parts = []
    if group is not None:
        parts.append(f"{group.available:,} more of {group.limit:,} ({group.at})")
    if user_limit is not None and math.isfinite(user_limit):
        parts.append(f"{user_left:,.0f} more of {user_limit:,.0f} for this user (ulimit -u)")
    observed = "; ".join(parts) or "no limit but the kernel's"
    facts = {"group_limit": group.limit if group else None, "user_limit": _fact(user_limit)}
    remedies = []
    if group is not None and group.available < tasks.num_needed:
        number = group.limit - group.available + tasks.num_needed
        remedies.append(
            f"Raise {group.at} to {number:,} or more: docker `--pids-limit {number}`, in Kubernetes the "
            f"kubelet's podPidsLimit, in a systemd unit TasksMax={number}."
        )
    if user_left is not None and user_left < tasks.num_needed:
        number = tasks.num_user_threads + tasks.num_needed
        remedies.append(f"Run `ulimit -u {number}`, or set LimitNPROC={number} in the systemd unit.")
    status = CheckStatus.WARN if remedies else CheckStatus.PASS
    return Finding(status, observed, " ".join(remedies) or None, facts)


def _show(limit: float) -> str:
    return f"{limit:,.0f}" if math.isfinite(limit) else "unlimited"


def _fact(limit: float | None) -> int | str | None:
    if limit is None:
        return None
    return int(limit) if math.isfinite(limit) else "unlimited"
