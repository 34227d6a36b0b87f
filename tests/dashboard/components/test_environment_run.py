from __future__ import annotations

from dashboard.components.environment_run import progress_text
from engine.environment import CheckResult, CheckStatus
from engine.environment.runs import RunProgress

ENDED = CheckResult("a.b", "B", "x", "y", CheckStatus.PASS, None, 0.1)


def test_progress_names_what_runs_and_counts_the_rest() -> None:
    progress = RunProgress("cpu-laptop", False, ("A", "B", "C", "D", "E", "F"), (ENDED,))
    assert progress_text(progress) == "1 of 7 checks, running: A, B, C, D and 2 more"
    assert progress_text(RunProgress("cpu-laptop", False, ("A_1",), ())) == r"0 of 1 check, running: A\_1"


def test_progress_at_the_end_names_nothing() -> None:
    assert progress_text(RunProgress("cpu-laptop", False, (), (ENDED,))) == "1 of 1 check"
