"""Is this machine fit, and what must change."""

from __future__ import annotations

import streamlit as st

from dashboard.components.environment_report import show_checks, show_take_along, show_verdict, show_versions
from dashboard.components.times import browser_zone
from dashboard.resources import console
from engine.environment import versions

this = console()

with st.container(horizontal=True, horizontal_alignment="distribute", vertical_alignment="center"):
    st.title("Environment", anchor=False, width="content")
    is_asked = st.button("Run again", icon=":material/refresh:")

report = this.environment
if report is None or is_asked:
    with st.spinner("Checking this machine, up to ten seconds…"):
        report = this.check_environment()

show_verdict(report, this.clock.wall(), browser_zone())
show_checks(report)
show_take_along(report)
st.subheader("Versions", anchor=False)
show_versions(versions(this.nvml))
