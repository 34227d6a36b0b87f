"""What two readings of a counter say about the time between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class CpuTimes:
    """Seconds that one core has spent since the machine started."""

    total_s: float
    idle_s: float


def busy_ratios(before: Sequence[CpuTimes], after: Sequence[CpuTimes]) -> tuple[float, ...] | None:
    """Each core's busy share of the time between; None if no time passed or a core came or went."""
    if len(before) != len(after) or any(b.total_s <= a.total_s for a, b in zip(before, after, strict=True)):
        return None
    idle = [(b.idle_s - a.idle_s) / (b.total_s - a.total_s) for a, b in zip(before, after, strict=True)]
    return tuple(min(1.0, max(0.0, 1.0 - share)) for share in idle)


def rate_per_s(before: float | None, after: float | None, elapsed_s: float) -> float | None:
    """A counter's growth a second; None without both ends or time between them, or if it went backwards."""
    if before is None or after is None or elapsed_s <= 0 or after < before:
        return None
    return (after - before) / elapsed_s


def rates_per_s(
    before: tuple[int, int] | None, after: tuple[int, int] | None, elapsed_s: float
) -> tuple[float | None, float | None]:
    """`rate_per_s` for a pair of counters."""
    if before is None or after is None:
        return None, None
    return rate_per_s(before[0], after[0], elapsed_s), rate_per_s(before[1], after[1], elapsed_s)
