"""The runs of the past; the chosen one is named in the URL."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import tzinfo
from typing import Any

import streamlit as st

from dashboard.components.formats import plain
from dashboard.components.past_runs import forget_run, named_run, show_runs
from dashboard.components.times import format_moment, local_datetime
from engine.environment import EnvironmentReport
from engine.environment.history import ReportHistory, ReportSummary


def chosen_report(history: ReportHistory, latest: EnvironmentReport | None, zone: tzinfo) -> EnvironmentReport | None:
    """The report that the URL names, with a way back, else the latest."""
    found = named_run(history.get, "This run is no longer kept, or never was here. The latest one is shown.")
    if found is None:
        return latest
    with st.container(horizontal=True, vertical_alignment="center"):
        st.info(f"The run of {plain(format_moment(found.taken_at_s, zone))}.", icon=":material/history:")
        st.button("Show the latest", icon=":material/last_page:", on_click=forget_run)
    return found


def history_rows(summaries: Sequence[ReportSummary], zone: tzinfo) -> dict[str, list[Any]]:
    """The runs as columns of a table."""
    return {
        "Taken": [local_datetime(summary.taken_at_s, zone) for summary in summaries],
        "Verdict": [summary.verdict.value for summary in summaries],
        "Profile": [summary.profile for summary in summaries],
        "Deep": [summary.is_deep for summary in summaries],
    }


def show_history(summaries: Sequence[ReportSummary], zone: tzinfo) -> None:
    """The table; choosing a row opens that run."""
    if not summaries:
        st.caption("No run is kept yet.")
        return
    ids = [summary.id for summary in summaries]
    show_runs(ids, history_rows(summaries, zone), "Taken", "Past runs of the checks with their verdicts")
