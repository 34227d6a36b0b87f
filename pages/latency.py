"""How long stored requests took: percentiles, their course, their distribution, and single requests."""

from __future__ import annotations

from dataclasses import replace

import streamlit as st

from dashboard.components.errors import errors_shown
from dashboard.components.latency_charts import distribution_figure, series_figure
from dashboard.components.latency_filter import Choice, choose_filter
from dashboard.components.latency_requests import show_requests, to_csv
from dashboard.components.latency_summary import show_nothing_fits, show_summary
from dashboard.components.latency_terms import LABELS, show_terms
from dashboard.components.objectives import objectives_of
from dashboard.components.times import browser_zone
from dashboard.resources import console
from engine.latency import LatencySummary, Metric, RecordFilter

REFRESH_S = 5
NUM_RECENT, NUM_IN_CSV = 100, 10_000
VIEWS = ("Over time", "Distribution", "Requests")
this = console()
objectives = objectives_of(this.settings)


def show_latency(choice: Choice) -> None:
    with errors_shown():
        asked = choice.at(this.clock.wall())
        summary = this.records.summarize(asked)
        everyone = this.records.summarize(replace(asked, statuses=None)) if choice.statuses else summary
        if summary.num_records == 0:
            show_nothing_fits(everyone.num_by_status)
            return
        show_summary(summary, everyone.num_by_status, objectives)
        show_view(asked, summary)


def show_view(asked: RecordFilter, summary: LatencySummary) -> None:
    with st.container(horizontal=True, vertical_alignment="bottom"):
        view = st.segmented_control("View", VIEWS, default=VIEWS[0], required=True, key="view", bind="query-params")
        if view != "Requests":
            metrics = {label: metric for metric, label in LABELS.items()}
            chosen = st.segmented_control(
                "Latency", list(metrics), default=LABELS[Metric.TTFT], required=True, key="metric", bind="query-params"
            )
            metric = metrics[chosen or LABELS[Metric.TTFT]]
    if view == "Requests":
        show_requests(
            this.records.recent(asked, NUM_RECENT),
            browser_zone(),
            lambda: to_csv(this.records.recent(asked, NUM_IN_CSV)),
        )
    elif view == "Distribution":
        points = this.records.distribution(asked, metric)
        figure = distribution_figure(points, summary.metrics[metric], metric, objectives.get(metric))
        st.plotly_chart(figure, key="distribution", alt=f"Distribution of {LABELS[metric]}")
    else:
        figure = series_figure(this.records.series(asked), metric, objectives.get(metric), browser_zone())
        st.plotly_chart(figure, key="series", alt=f"Percentiles of {LABELS[metric]} over time")


st.title("Latency", anchor=False)
with errors_shown():
    choice = choose_filter(this.records.models(), this.records.keys())
    st.fragment(show_latency, run_every=REFRESH_S if choice.is_live else None)(choice)
    show_terms()
