from __future__ import annotations

import pytest

from dashboard.components.check_list import checks_text, counts_text, family_summary, quiet_line, status_badge
from engine.environment import CheckResult, CheckStatus, EnvironmentReport


def result(status: CheckStatus) -> CheckResult:
    return CheckResult(f"a.{status}", f"Check {status}", "x", "y_z", status, None, 0.1)


@pytest.mark.parametrize("status", list(CheckStatus))
def test_every_status_has_a_look(status: CheckStatus) -> None:
    assert status.value in status_badge(status)


def test_a_family_is_summed_up_worst_first() -> None:
    checks = tuple(result(status) for status in (*CheckStatus, CheckStatus.PASS))
    assert family_summary(checks) == "1 fail, 1 error, 1 warn, 2 pass, 1 skip"


def test_counts_leave_out_what_does_not_occur() -> None:
    checks = (result(CheckStatus.PASS), result(CheckStatus.PASS), result(CheckStatus.WARN))
    report = EnvironmentReport(checks, 0.0, "cpu-laptop")
    assert counts_text(report) == ":green-badge[2 pass] :orange-badge[1 warn]"
    assert checks_text(report) == "3 checks"


def test_what_was_skipped_for_one_reason_is_one_line() -> None:
    group = (result(CheckStatus.SKIP), result(CheckStatus.SKIP))
    assert quiet_line(group).endswith(r"**Check skip**, **Check skip** · y\_z")
