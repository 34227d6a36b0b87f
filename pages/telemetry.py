"""What the host, this process and each GPU are doing, live and over the last fifteen minutes."""

from __future__ import annotations

import streamlit as st

from dashboard.components.cards import show_cards
from dashboard.components.errors import show_error
from dashboard.components.gpu_cards import show_gpus
from dashboard.components.host_cards import host_cards, process_cards
from dashboard.components.telemetry_charts import gpu_charts, host_charts
from dashboard.components.telemetry_history import history_figure
from dashboard.components.times import browser_zone, format_moment
from dashboard.resources import console

FASTEST_CARDS_S, FASTEST_CHARTS_S = 1.0, 5.0
this = console()
interval_s = this.settings.telemetry_interval_s


@st.fragment(run_every=max(interval_s, FASTEST_CARDS_S))
def show_live() -> None:
    sample, samples = this.sampler.latest(), this.sampler.history()
    if this.sampler.error:
        show_error(f"The newest telemetry sample could not be taken: {this.sampler.error}")
    if sample is None:
        st.info("The first sample is being taken.", icon=":material/hourglass_top:")
        return
    st.caption(f"Every {interval_s:g} s, last at {format_moment(sample.taken_at_s, browser_zone())}")
    st.subheader("Host", anchor=False)
    show_cards(host_cards(sample), samples)
    st.subheader("GPUs", anchor=False)
    show_gpus(sample, samples)
    st.subheader("This process", anchor=False)
    show_cards(process_cards(sample.process), samples)


@st.fragment(run_every=max(interval_s, FASTEST_CHARTS_S))
def show_history() -> None:
    sample, samples = this.sampler.latest(), this.sampler.history()
    if sample is None:
        return
    st.subheader("History", anchor=False)
    charts = {chart.title: chart for chart in (*gpu_charts(sample), *host_charts())}
    titles = list(charts)
    title = st.segmented_control(
        "Chart",
        titles,
        default=titles[0],
        required=True,
        key="chart",
        bind="query-params",
        label_visibility="collapsed",
    )
    chart = charts[title or titles[0]]
    st.plotly_chart(
        history_figure(chart, samples, browser_zone()), key="history", alt=f"{chart.title} over the last 15 minutes"
    )


st.title("Telemetry", anchor=False)
show_live()
show_history()
