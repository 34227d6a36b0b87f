from __future__ import annotations

from datetime import UTC, datetime

from dashboard.components.environment_history import history_rows
from engine.environment import CheckStatus
from engine.environment.history import ReportSummary


def test_rows_are_columns_on_the_readers_clock() -> None:
    rows = history_rows([ReportSummary("a", 1_700_000_000.0, "autoglm-9b", True, CheckStatus.WARN)], UTC)
    assert rows == {
        "Taken": [datetime(2023, 11, 14, 22, 13, 20)],
        "Verdict": ["warn"],
        "Profile": ["autoglm-9b"],
        "Deep": [True],
    }
