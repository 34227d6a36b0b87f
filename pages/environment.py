"""Is this machine fit, and what exactly must change."""

from __future__ import annotations

import streamlit as st

from dashboard.components.check_list import choose_statuses, show_families
from dashboard.components.environment_history import chosen_report, show_history
from dashboard.components.environment_report import show_changes, show_take_along, show_verdict, show_versions
from dashboard.components.environment_run import show_progress, show_start
from dashboard.components.errors import errors_shown
from dashboard.components.times import browser_zone
from dashboard.resources import console
from engine.environment import EnvironmentReport, compare, list_profiles

DAY_S = 86_400.0
this = console()
runs, zone = this.environment, browser_zone()


def show_report(report: EnvironmentReport) -> None:
    show_verdict(report, this.clock.wall(), zone)
    before = runs.history.before(report.taken_at_s)
    older = runs.history.before(report.taken_at_s - DAY_S)
    show_changes(compare(before, report, older) if before else None, before, zone)
    show_families(report, choose_statuses())
    show_take_along(report)
    st.subheader("Versions", anchor=False)
    show_versions(report.versions)


st.title("Environment", anchor=False)
if runs.latest() is None and runs.error is None:
    with errors_shown():
        runs.start()
progress = runs.progress()
show_start(runs, list_profiles(this.settings.home), is_running=progress is not None)
show_progress(runs, progress)
with errors_shown():
    chosen = chosen_report(runs.history, runs.latest(), zone)
    if chosen is not None:
        show_report(chosen)
    st.subheader("Runs", anchor=False)
    show_history(runs.history.list(), zone)
