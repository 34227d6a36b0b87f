"""Past experiments as a table."""

from __future__ import annotations

from datetime import UTC

from dashboard.components.lab_history import history_columns
from engine.lab import ExperimentStatus, ExperimentSummary


def test_the_one_under_way_is_told_from_one_that_was_interrupted() -> None:
    summaries = [ExperimentSummary(name, 0.0, "sample", ExperimentStatus.INTERRUPTED, 2) for name in ("now", "then")]
    assert history_columns(summaries, "now", UTC)["Status"] == ["running", "interrupted"]
    assert history_columns(summaries, None, UTC)["Status"] == ["interrupted", "interrupted"]
