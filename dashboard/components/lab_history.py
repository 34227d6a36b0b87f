"""Past experiments; the chosen one is named in the URL."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import tzinfo
from typing import Any

import streamlit as st

from dashboard.components.past_runs import is_run_named, named_run, open_run, show_runs
from dashboard.components.times import local_datetime
from engine.lab import Experiment, ExperimentSummary, Lab, LabProgress


def chosen_experiment(lab: Lab, progress: LabProgress | None) -> Experiment | None:
    """The one that the URL names, else the latest; None while it runs, and before the first."""
    found = named_run(lab.store.get, "This experiment is no longer kept, or never was here. The latest one is shown.")
    found = found or lab.store.latest()
    is_running = found is not None and progress is not None and progress.experiment.id == found.id
    return None if is_running else found


def name_running(progress: LabProgress | None) -> None:
    """A URL that names none names the one under way, which then stays open when it ends."""
    if progress is not None and not is_run_named():
        open_run(progress.experiment.id)


def history_columns(
    summaries: Sequence[ExperimentSummary], running_id: str | None, zone: tzinfo
) -> dict[str, list[Any]]:
    """The experiments as columns of a table; `running_id` has not ended yet."""
    return {
        "Started": [local_datetime(summary.started_at_s, zone) for summary in summaries],
        "Model": [summary.source for summary in summaries],
        "Variants": [summary.num_variants for summary in summaries],
        "Status": ["running" if summary.id == running_id else summary.status.value for summary in summaries],
    }


def show_history(lab: Lab, progress: LabProgress | None, zone: tzinfo) -> None:
    """The table; choosing a row opens that experiment."""
    summaries = lab.store.list()
    if not summaries:
        st.caption("No experiment is kept yet.")
        return
    columns = history_columns(summaries, None if progress is None else progress.experiment.id, zone)
    ids = [summary.id for summary in summaries]
    show_runs(ids, columns, "Started", "Past experiments and how they ended")
