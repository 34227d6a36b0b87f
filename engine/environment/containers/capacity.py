"""Do the limits of what runs in containers, with what is planned, fit the machine."""

from __future__ import annotations

from dataclasses import dataclass

from engine.deploy.docker import EngineInfo, RunningContainer, RunningContainers
from engine.environment.check import CheckStatus, Fact, Finding, format_gb
from engine.environment.profile import GB, ContainersProfile

_MAX_NAMED = 4


@dataclass(frozen=True)
class _Sums:
    """Over all that runs; `taken_bytes` is the limit of each container, or its reservation where it has none."""

    limits_bytes: int
    reservations_bytes: int
    taken_bytes: int
    cpus: float


def judge_capacity(running: RunningContainers, info: EngineInfo, profile: ContainersProfile) -> Finding:
    """Warn where limits exceed the machine; fail where the planned container's memory or cores are not there.

    A memory limit counts as memory taken, since a container may use it at any moment; without a limit its reservation
    does. Cores are shared in time: more limits than cores only slow everybody down, and CPU shares are weights that
    reserve nothing. What has no limit is named, for it can take everything: with memory planned, it is a warning.
    """
    if running.reason is not None:
        return Finding(CheckStatus.SKIP, f"the engine does not tell what runs: {running.reason}")
    if info.memory_bytes is None or info.num_cpus is None:
        return Finding(CheckStatus.SKIP, "the engine does not tell what the machine has")
    sums = _sum(running)
    planned_bytes = int(profile.memory_gb * GB)
    facts: dict[str, Fact] = {
        "num_running": len(running.containers) + running.num_unread,
        "memory_limits_bytes": sums.limits_bytes,
        "memory_reservations_bytes": sums.reservations_bytes,
        "cpu_limits": round(sums.cpus, 3),
        "host_memory_bytes": info.memory_bytes,
        "host_cpus": info.num_cpus,
    }
    observed = _describe(running, sums, info.memory_bytes, info.num_cpus, profile)
    misfit = _misfit(sums.taken_bytes, planned_bytes, info.memory_bytes, info.num_cpus, profile.cpus)
    if misfit:
        return Finding(CheckStatus.FAIL, observed, misfit, facts)
    remedy = _overcommit(sums.taken_bytes, info.memory_bytes, sums.cpus + profile.cpus, info.num_cpus)
    remedy = remedy or (_doubt(running, planned_bytes) if planned_bytes else None)
    return Finding(CheckStatus.WARN if remedy else CheckStatus.PASS, observed, remedy, facts)


def _sum(running: RunningContainers) -> _Sums:
    ones = running.containers
    return _Sums(
        limits_bytes=sum(one.memory_limit_bytes or 0 for one in ones),
        reservations_bytes=sum(one.memory_reservation_bytes or 0 for one in ones),
        taken_bytes=sum(one.memory_limit_bytes or one.memory_reservation_bytes or 0 for one in ones),
        cpus=sum(one.cpu_limit or 0.0 for one in ones),
    )


def _misfit(taken_bytes: int, planned_bytes: int, host_bytes: int, num_cpus: int, planned_cpus: float) -> str | None:
    """What the planned container lacks; None when it fits."""
    free_bytes = max(0, host_bytes - taken_bytes)
    at_most = f"plan for at most {free_bytes // 10**8 / 10:g} GB: set containers.memory_gb in the profile"
    if planned_bytes > host_bytes:
        return f"Use a machine with {format_gb(planned_bytes)} of memory or more, or {at_most}."
    if planned_bytes > free_bytes:
        lack = format_gb(planned_bytes - free_bytes)
        return f"Stop containers or lower their limits (`docker update --memory`) by {lack}, or {at_most}."
    if planned_cpus > num_cpus:
        return f"Plan for at most {num_cpus} cores (containers.cpus in the profile), or use a machine with more."
    return None


def _overcommit(memory_bytes: int, host_bytes: int, cpus: float, num_cpus: int) -> str | None:
    """What to lower, of memory first, for it kills; None when all fits."""
    if memory_bytes > host_bytes:
        excess = format_gb(memory_bytes - host_bytes)
        return (
            f"Lower memory limits and reservations by {excess} (`docker update --memory 4g --memory-reservation 2g "
            "NAME`): when all is used, the kernel kills."
        )
    if cpus > num_cpus:
        return (
            f"Lower CPU limits by {cpus - num_cpus:g} cores (`docker update --cpus 1 NAME`), or expect latencies to "
            "rise when all are busy."
        )
    return None


def _doubt(running: RunningContainers, planned_bytes: int) -> str | None:
    """Why the planned memory may not be there although the known limits leave it; None where it is."""
    unlimited = [one for one in running.containers if one.memory_limit_bytes is None]
    advice = []
    if unlimited:
        limit = f"`docker update --memory 4g --memory-swap 4g {unlimited[0].name}`"
        advice.append(f"Give {_names(unlimited)} a memory limit ({limit}): it may take the {format_gb(planned_bytes)}.")
    if running.num_unread:
        advice.append(
            f"Compare the limits of the {running.num_unread} not read in time (`docker stats --no-stream`), or check "
            "again when the engine answers faster."
        )
    return " ".join(advice) or None


def _describe(
    running: RunningContainers, sums: _Sums, host_bytes: int, num_cpus: int, profile: ContainersProfile
) -> str:
    containers = running.containers
    if not containers and not running.num_unread:
        text = f"nothing runs; the machine has {format_gb(host_bytes)} and {num_cpus} cores"
    else:
        reserved = f", reservations {format_gb(sums.reservations_bytes)}," if sums.reservations_bytes else ""
        text = (
            f"{len(containers)} running: memory limits {format_gb(sums.limits_bytes)}{reserved} of "
            f"{format_gb(host_bytes)}, CPU limits {sums.cpus:g} of {num_cpus} cores"
        )
    if profile.memory_gb or profile.cpus:
        text += (
            f"; planned {profile.memory_gb:g} GB and {profile.cpus:g} cores more, together "
            f"{format_gb(sums.taken_bytes + profile.memory_gb * GB)} and {sums.cpus + profile.cpus:g} cores"
        )
    unlimited = {
        "no memory limit": [one for one in containers if one.memory_limit_bytes is None],
        "no CPU limit": [one for one in containers if one.cpu_limit is None and one.cpu_shares is None],
        "CPU shares alone, which reserve nothing": [
            one for one in containers if one.cpu_limit is None and one.cpu_shares is not None
        ],
    }
    for what, which in unlimited.items():
        text += f"; {what}: {_names(which)}" if which else ""
    return text + (f"; {running.num_unread} more not read in time" if running.num_unread else "")


def _names(containers: list[RunningContainer]) -> str:
    shown = ", ".join(one.name for one in containers[:_MAX_NAMED])
    rest = len(containers) - _MAX_NAMED
    return f"{shown} and {rest} more" if rest > 0 else shown
