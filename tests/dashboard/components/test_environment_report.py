from __future__ import annotations

import pytest

from dashboard.components.environment_report import check_rows, counts_text, status_badge, version_rows
from engine.environment import CheckResult, CheckStatus, EnvironmentReport


def result(status: CheckStatus) -> CheckResult:
    return CheckResult(f"a.{status}", f"Check {status}", "x", "y_z", status, None, 0.1)


@pytest.mark.parametrize("status", list(CheckStatus))
def test_every_status_has_a_look(status: CheckStatus) -> None:
    assert status.value in status_badge(status)


def test_rows_are_worst_first_and_plain() -> None:
    rows = check_rows(tuple(result(status) for status in CheckStatus))
    assert [row["Check"] for row in rows] == [f"**Check {word}**" for word in ("fail", "error", "warn", "pass", "skip")]
    assert {row["Observed"] for row in rows} == {r"y\_z"}
    assert {row["Remedy"] for row in rows} == {"–"}


def test_counts_leave_out_what_does_not_occur() -> None:
    report = EnvironmentReport((result(CheckStatus.PASS), result(CheckStatus.PASS), result(CheckStatus.WARN)), 0.0)
    assert counts_text(report) == ":green-badge[2 pass] :orange-badge[1 warn]"


def test_versions() -> None:
    assert version_rows({"torch": "2.13.0", "torch_cuda": None, "new-part": "1"}) == [
        {"Component": "PyTorch", "Version": "2.13.0"},
        {"Component": "CUDA that PyTorch was built with", "Version": "–"},
        {"Component": "new-part", "Version": "1"},
    ]
