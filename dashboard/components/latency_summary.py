"""The percentiles as a table, and how the requests ended."""

from __future__ import annotations

from collections.abc import Mapping

import streamlit as st

from dashboard.components.formats import DASH, format_count, format_seconds, plural, unbroken
from dashboard.components.latency_terms import LABELS
from dashboard.components.objectives import VERDICT_COLORS, judge
from engine.latency import LatencySummary, Metric, Status

_STATUS_COLORS = {
    Status.SUCCESSFUL: "green",
    Status.CANCELLED: "gray",
    Status.ERRORED: "red",
    Status.REJECTED: "orange",
}


def summary_rows(summary: LatencySummary, objectives: Mapping[Metric, float]) -> list[dict[str, str]]:
    """One row a metric, as text and Markdown, in the order of the terms."""
    return [_summary_row(summary, metric, objectives.get(metric)) for metric in Metric]


def _summary_row(summary: LatencySummary, metric: Metric, objective_s: float | None) -> dict[str, str]:
    found = summary.metrics[metric]
    return {
        "Latency": f"**{LABELS[metric]}**",
        "P50": unbroken(format_seconds(found.p50_s)),
        "P95": unbroken(format_seconds(found.p95_s)),
        "P95 objective": objective_text(found.p95_s, objective_s),
        "P99": unbroken(format_seconds(found.p99_s)),
        "Max": unbroken(format_seconds(found.max_s)),
        "Requests": format_count(found.num_samples),
    }


def objective_text(p95_s: float | None, objective_s: float | None) -> str:
    """The bound and whether it was met; a dash where there is no objective."""
    if objective_s is None:
        return DASH
    verdict = judge(p95_s, objective_s)
    return f"{unbroken(format_seconds(objective_s))} :{VERDICT_COLORS[verdict]}-badge[{verdict.value}]"


def status_text(counts: Mapping[Status, int]) -> str:
    """A badge a status, zeros in grey."""
    return " ".join(
        f":{_STATUS_COLORS[status] if counts[status] else 'gray'}-badge[{counts[status]:,} {status.value}]"
        for status in Status
    )


def show_summary(
    summary: LatencySummary, num_by_status: Mapping[Status, int], objectives: Mapping[Metric, float]
) -> None:
    """The table, and under it the requests by status and the tokens."""
    import pandas as pd

    st.table(pd.DataFrame(summary_rows(summary, objectives)), hide_index=True, border="horizontal")
    st.markdown(
        f"{status_text(num_by_status)} :small[:gray[{plural(summary.num_prompt_tokens, 'token')} in"
        f" · {plural(summary.num_output_tokens, 'token')} out]]"
    )


def show_nothing_fits(num_by_status: Mapping[Status, int]) -> None:
    """What to do about an empty answer: widen the filters, or send a first request."""
    if any(num_by_status.values()):
        st.info(
            f"No request of this status; there are {status_text(num_by_status)} — choose another status.",
            icon=":material/filter_alt:",
        )
        return
    st.info(
        "No request fits these filters. Choose a longer time range or fewer filters; if nothing was asked yet,"
        " ask the model something in the playground or through the API, and its latency shows up here.",
        icon=":material/timer:",
    )
