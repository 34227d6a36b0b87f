from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.environment.changes import MIN_SIZE_CHANGE_RATIO, Change, Direction, compare, show_fact
from engine.environment.check import CheckStatus, Fact
from engine.environment.report import EnvironmentReport
from tests.engine.environment.builders import report_of, reports, result

DAY_S = 86_400.0
GB = 10**9


def with_facts(facts: Mapping[str, Fact], taken_at_s: float = 0.0, **options: str) -> EnvironmentReport:
    return report_of(result(facts=facts), taken_at_s=taken_at_s, **options)


def with_status(status: str, **facts: Fact) -> EnvironmentReport:
    return report_of(result(status=CheckStatus(status), observed=f"seen {status}", facts=facts))


def told(before: EnvironmentReport, after: EnvironmentReport) -> list[tuple[str, str, str]]:
    return [(change.what, change.before, change.after) for change in compare(before, after)]


@given(reports)
def test_a_report_is_no_different_from_itself(report: EnvironmentReport) -> None:
    assert compare(report, report) == ()


@given(reports, reports)
def test_there_and_back_are_as_many_changes_of_opposite_direction(
    before: EnvironmentReport, after: EnvironmentReport
) -> None:
    after = replace(after, profile=before.profile)
    there, back = compare(before, after), compare(after, before)
    assert len(there) == len(back)
    opposite = {"better": "worse", "worse": "better", "neutral": "neutral"}
    turned = {(change.check_id, change.what, change.after, change.before): change.direction for change in back}
    for change in there:
        assert turned[change.check_id, change.what, change.before, change.after] == opposite[change.direction]


@given(reports, reports)
def test_only_what_both_runs_checked_is_compared(before: EnvironmentReport, after: EnvironmentReport) -> None:
    both = {check.id for check in before.checks} & {check.id for check in after.checks}
    assert {change.check_id for change in compare(before, after)} <= both


def test_an_upgraded_driver() -> None:
    before, after = (report_of(result("gpu.driver", facts={"version": v})) for v in ("550.54", "580.95"))
    assert compare(before, after) == (Change("gpu.driver", "A check", "version", "550.54", "580.95"),)


def test_packages_that_drifted_came_and_went() -> None:
    before = with_facts({"torch": "2.13.0", "gguf": "0.19.0", "numpy": "2.4.6", "docker": None})
    after = with_facts({"torch": "2.14.0", "numpy": "2.4.6", "duckdb": "2.0.0", "docker": None})
    assert told(before, after) == [
        ("torch", "2.13.0", "2.14.0"),
        ("gguf", "0.19.0", "none"),
        ("duckdb", "none", "2.0.0"),
    ]


def test_a_fact_that_is_none_and_one_that_is_missing_are_the_same() -> None:
    assert told(with_facts({"swap": None}), with_facts({})) == []


def test_a_yes_that_became_a_no() -> None:
    assert told(with_facts({"ecc": True}), with_facts({"ecc": False})) == [("ecc", "yes", "no")]
    assert told(with_facts({"ecc": 0}), with_facts({"ecc": True})) == [("ecc", "0", "yes")]


# Statuses


@pytest.mark.parametrize(
    ("before", "after", "direction"),
    [
        ("pass", "warn", "worse"),
        ("pass", "fail", "worse"),
        ("warn", "fail", "worse"),
        ("pass", "error", "worse"),
        ("fail", "pass", "better"),
        ("error", "pass", "better"),
        ("fail", "error", "neutral"),
        ("error", "fail", "neutral"),
        ("pass", "skip", "neutral"),
        ("skip", "fail", "neutral"),
    ],
)
def test_a_changed_status_has_a_direction(before: str, after: str, direction: str) -> None:
    (change,) = compare(with_status(before), with_status(after))
    assert (change.what, change.before, change.after) == ("status", before, after)
    assert (change.direction, change.note) == (Direction(direction), f"seen {after}")


def test_what_became_worse_comes_first_and_facts_come_last() -> None:
    def report(**statuses: str) -> EnvironmentReport:
        return report_of(
            *(
                result(f"host.{name}", CheckStatus(status), facts={"seen": status == "pass"} if name == "a" else {})
                for name, status in statuses.items()
            )
        )

    changes = compare(report(a="pass", b="fail", c="pass", d="skip"), report(a="warn", b="pass", c="fail", d="pass"))
    assert [(change.check_id, change.what) for change in changes] == [
        ("host.a", "status"),
        ("host.c", "status"),
        ("host.b", "status"),
        ("host.d", "status"),
        ("host.a", "seen"),
    ]


def test_another_profile_changes_statuses_without_the_machine() -> None:
    before = report_of(result(status=CheckStatus.PASS, facts={"cores": 2}), profile="laptop")
    after = report_of(result(status=CheckStatus.FAIL, facts={"cores": 4}), profile="server")
    assert told(before, after) == [("cores", "2", "4")]


@pytest.mark.parametrize("silent", ["error", "skip"])
@pytest.mark.parametrize("is_gone", [True, False])
def test_beside_a_check_that_told_nothing_its_facts_are_neither_new_nor_gone(silent: str, is_gone: bool) -> None:
    spoke, was_silent = with_status("pass", version="550", cuda="12.4"), with_status(silent)
    before, after = (spoke, was_silent) if is_gone else (was_silent, spoke)
    assert [what for what, _, _ in told(before, after)] == ["status"]


# Sizes


@given(st.integers(0, 10**15), st.integers(0, 10**15))
def test_a_size_is_different_from_a_twentieth_on(old: int, new: int) -> None:
    is_told = bool(compare(with_facts({"free_bytes": old}), with_facts({"free_bytes": new})))
    assert is_told is (abs(new - old) > MIN_SIZE_CHANGE_RATIO * max(old, new))


@pytest.mark.parametrize(
    ("old", "new", "is_told"),
    [
        (100 * GB, 96 * GB, False),
        (100 * GB, 104 * GB, False),
        (1_000, 1_052, False),
        (1_000, 1_053, True),
        (100 * GB, 90 * GB, True),
        (0, 1, True),
        (0, 0, False),
    ],
)
def test_noise_in_a_size_is_not_told(old: int, new: int, is_told: bool) -> None:
    assert bool(told(with_facts({"free_bytes": old}), with_facts({"free_bytes": new}))) is is_told


def test_every_other_number_is_told() -> None:
    assert told(with_facts({"inodes": 100}), with_facts({"inodes": 99})) == [("inodes", "100", "99")]
    assert told(with_facts({"skew_s": 0.1}), with_facts({"skew_s": 0.1 + 1e-12})) == []


@pytest.mark.parametrize(
    ("old_gb", "new_gb", "days", "note"),
    [
        (100, 90, 1, "full in 9.0 days at this rate"),
        (100, 90, 10, "full in 90.0 days at this rate"),
        (100, 10, 0.5, "full in 0.1 days at this rate"),
        (100, 0, 1, "full"),
        (90, 100, 1, None),
        (100, 90, 0.01, None),
        (100, 90, -1, None),
    ],
)
def test_a_disk_that_shrinks_has_a_forecast(old_gb: float, new_gb: float, days: float, note: str | None) -> None:
    before = with_facts({"free_bytes": int(old_gb * GB)})
    after = with_facts({"free_bytes": int(new_gb * GB)}, days * DAY_S)
    (change,) = compare(before, after)
    assert change.note == note
    assert (change.before, change.after) == (f"{old_gb:.1f} GB", f"{new_gb:.1f} GB")


@pytest.mark.parametrize("name", ["total_bytes", "inodes_free", "used_bytes"])
def test_only_free_bytes_have_a_forecast(name: str) -> None:
    (change,) = compare(with_facts({name: 100 * GB}), with_facts({name: 50 * GB}, DAY_S))
    assert change.note is None


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("x", None, "none"),
        ("x", True, "yes"),
        ("x", 3, "3"),
        ("x", 12_345.678_91, "12,345.7"),
        ("free_bytes", 1_500_000_000, "1.5 GB"),
        ("free_bytes", None, "none"),
        ("version", "2.1", "2.1"),
    ],
)
def test_a_fact_in_words(name: str, value: Fact, text: str) -> None:
    assert show_fact(name, value) == text


def test_a_disk_that_loses_a_little_each_time_is_told_from_afar() -> None:
    def at(day: float, free_bytes: float) -> EnvironmentReport:
        return with_facts({"free_bytes": free_bytes}, day * 86_400)

    older, before, after = at(0, 100e9), at(2.9, 89e9), at(3, 88e9)
    assert compare(before, after) == ()
    (trend,) = compare(before, after, older)
    assert (trend.what, trend.before, trend.after) == ("free_bytes", "100.0 GB", "88.0 GB")
    assert trend.direction is Direction.WORSE
    assert trend.note == "full in 22.0 days at this rate since 3 days ago"
    assert compare(before, at(3, 99e9), older) == compare(before, at(3, 99e9))  # more than a month away
