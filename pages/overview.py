"""Everything at a glance, refreshed every two seconds."""

from __future__ import annotations

import streamlit as st

from dashboard.components.cards import show_cards
from dashboard.components.environment_report import show_verdict
from dashboard.components.environment_run import show_progress
from dashboard.components.errors import errors_shown
from dashboard.components.gpu_cards import show_gpu_glance
from dashboard.components.host_cards import glance_cards
from dashboard.components.in_flight import show_in_flight
from dashboard.components.instances import show_instances
from dashboard.components.links import show_heading, show_title
from dashboard.components.objective_cards import show_objectives
from dashboard.components.objectives import judge_all, objectives_of
from dashboard.components.times import browser_zone
from dashboard.resources import console
from engine import InstanceState
from engine.latency import RecordFilter, Status

LAST_HOUR_S = 3_600.0
this = console()


@st.fragment(run_every=2)
def show_now() -> None:
    instances, now_s = this.engine.instances(), this.clock.wall()
    show_title("Overview", any(info.state is InstanceState.READY for info in instances))
    models, in_flight = st.columns([3, 2], gap="large")
    with models:
        show_heading("Models", "models", "Manage models")
        show_instances(instances, now_s)
    with in_flight:
        show_heading("Requests in flight", "playground", "Ask something")
        show_in_flight(this.gateway.requests(), cancel)
    latency, machine = st.columns([3, 2], gap="large")
    with latency, errors_shown():
        show_heading("Latency, last hour", "latency", "Details")
        asked = RecordFilter(statuses=(Status.SUCCESSFUL,), since_s=now_s - LAST_HOUR_S)
        show_objectives(judge_all(this.records.summarize(asked), objectives_of(this.settings)))
    with machine:
        show_heading("Machine", "telemetry", "Details")
        show_machine()


def show_machine() -> None:
    sample = this.sampler.latest()
    if sample is None:
        st.caption(this.sampler.error or "The first telemetry sample is being taken.")
        return
    show_cards(glance_cards(sample))
    show_gpu_glance(sample.gpu)


def cancel(request_id: str) -> None:
    this.gateway.cancel(request_id)


def show_environment() -> None:
    show_heading("Environment", "environment", "All checks")
    progress = this.environment.progress()
    if st.button("Check now", icon=":material/refresh:", disabled=progress is not None):
        with errors_shown():
            this.environment.start()
            st.rerun()
    show_progress(this.environment, progress)
    report = this.environment.latest()
    if report is not None:
        show_verdict(report, this.clock.wall(), browser_zone())
    elif progress is None:
        st.caption("This machine was not checked yet.")


show_now()
show_environment()
