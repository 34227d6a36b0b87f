"""What is different between two reports: a status, a version, a package, a disk that shrinks. A pure function."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from engine.environment.check import WORST_FIRST, CheckResult, CheckStatus, Fact, format_gb
from engine.environment.report import EnvironmentReport

# Sizes flicker; below this share of the larger value a difference is noise.
MIN_SIZE_CHANGE_RATIO = 0.05
MIN_FORECAST_S = 3_600.0
TREND_DAYS_MAX = 30.0
_DAY_S = 86_400.0
_NUMBER_IS_NOISE = 1e-9
# Beside one of these, every fact of the other run would look new or gone: the changed status says it in one line.
_TELLS_NOTHING = frozenset({CheckStatus.SKIP, CheckStatus.ERROR})


class Direction(StrEnum):
    """Is a change for the better. `NEUTRAL` is a change of which this module cannot say."""

    BETTER = "better"
    WORSE = "worse"
    NEUTRAL = "neutral"


@dataclass(frozen=True)
class Change:
    """One difference. `what` is a fact's name, or `status`; `before` and `after` are for people."""

    check_id: str
    title: str
    what: str
    before: str
    after: str
    direction: Direction = Direction.NEUTRAL
    note: str | None = None


def compare(
    before: EnvironmentReport, after: EnvironmentReport, older: EnvironmentReport | None = None
) -> tuple[Change, ...]:
    """The differences of the checks that both runs made, changed statuses first, for the worse on top.

    A status is compared only within one profile: against another one it changes without the machine. `older` is a run
    of a day or more ago, if there is one: a disk that loses a little every time is seen only from afar.
    """
    earlier = {check.id: check for check in before.checks}
    pairs = [(earlier[check.id], check) for check in after.checks if check.id in earlier]
    elapsed_s = after.taken_at_s - before.taken_at_s
    statuses = [change for pair in pairs if before.profile == after.profile for change in _compare_status(*pair)]
    facts = [change for pair in pairs for change in _compare_facts(*pair, elapsed_s)]
    order = (Direction.WORSE, Direction.BETTER, Direction.NEUTRAL)
    known = {(change.check_id, change.what) for change in facts}
    trends = [] if older is None else [c for c in _find_trends(older, after) if (c.check_id, c.what) not in known]
    return (*sorted(statuses, key=lambda change: order.index(change.direction)), *facts, *trends)


def _find_trends(older: EnvironmentReport, after: EnvironmentReport) -> Iterator[Change]:
    """Free space that is gone within a month at the rate since `older`."""
    earlier = {check.id: check for check in older.checks}
    elapsed_s = after.taken_at_s - older.taken_at_s
    for check in after.checks:
        facts = earlier[check.id].facts if check.id in earlier else {}
        for name, new in check.facts.items():
            days = _days_left(name, facts.get(name), new, elapsed_s)
            if days is not None and days <= TREND_DAYS_MAX:
                note = f"{_show_days(days)} since {elapsed_s / _DAY_S:.0f} days ago"
                shown = show_fact(name, facts.get(name)), show_fact(name, new)
                yield Change(check.id, check.title, name, *shown, Direction.WORSE, note)


def _compare_status(before: CheckResult, after: CheckResult) -> Iterator[Change]:
    if before.status is after.status:
        return
    order = (*WORST_FIRST, CheckStatus.SKIP)
    ranks = order.index(before.status), order.index(after.status)
    direction = Direction.NEUTRAL
    is_unknown = {before.status, after.status} == {CheckStatus.FAIL, CheckStatus.ERROR}
    if CheckStatus.SKIP not in (before.status, after.status) and not is_unknown:
        direction = Direction.WORSE if ranks[1] < ranks[0] else Direction.BETTER
    yield Change(after.id, after.title, "status", before.status, after.status, direction, after.observed)


def _compare_facts(before: CheckResult, after: CheckResult, elapsed_s: float) -> Iterator[Change]:
    if _TELLS_NOTHING & {before.status, after.status} or not (before.facts and after.facts):
        return
    for name in dict.fromkeys((*before.facts, *after.facts)):
        old, new = before.facts.get(name), after.facts.get(name)
        if _is_different(name, old, new):
            note = _forecast(name, old, new, elapsed_s)
            yield Change(after.id, after.title, name, show_fact(name, old), show_fact(name, new), note=note)


def _is_different(name: str, old: Fact, new: Fact) -> bool:
    if not (_is_number(old) and _is_number(new)):
        return old != new
    difference = abs(float(new) - float(old))  # type: ignore[arg-type]
    if name.endswith(("_bytes", "inodes_free")):
        return difference > MIN_SIZE_CHANGE_RATIO * max(abs(float(old)), abs(float(new)))  # type: ignore[arg-type]
    return difference > _NUMBER_IS_NOISE


def _forecast(name: str, old: Fact, new: Fact, elapsed_s: float) -> str | None:
    """When free space that shrank is gone at this rate; None for the rest, and where the time is too short to tell."""
    days = _days_left(name, old, new, elapsed_s)
    return None if days is None else _show_days(days)


def _days_left(name: str, old: Fact, new: Fact, elapsed_s: float) -> float | None:
    if not name.endswith("free_bytes") or elapsed_s < MIN_FORECAST_S or not (_is_number(old) and _is_number(new)):
        return None
    lost_bytes_per_s = (float(old) - float(new)) / elapsed_s  # type: ignore[arg-type]
    return float(new) / lost_bytes_per_s / _DAY_S if lost_bytes_per_s > 0 else None  # type: ignore[arg-type]


def _show_days(days: float) -> str:
    return f"full in {days:.1f} days at this rate" if days else "full"


def show_fact(name: str, value: Fact) -> str:
    """A fact for people: sizes in gigabytes, `none` where there is none."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if _is_number(value) and name.endswith("_bytes"):
        return format_gb(float(value))
    return f"{value:,.6g}" if isinstance(value, float) else str(value)


def _is_number(value: Fact) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
