"""Have weights here, and are they genuine: pulling, what lies in the cache, who signed what, which files changed."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from dashboard.components.cache_check import show_cache_check
from dashboard.components.errors import errors_shown
from dashboard.components.pull_form import show_pull
from dashboard.components.signatures import show_signatures
from dashboard.components.times import browser_zone
from dashboard.components.weights_cache import show_cache
from dashboard.resources import console

this = console()
zone = browser_zone()
progress, pulling = this.cache_jobs.progress(), this.pulls.progress()  # before what the work changes is read

st.title("Weights", anchor=False)
st.subheader("Pull a model", anchor=False)
show_pull(this.pulls, this.planner, pulling)
st.subheader("Cache", anchor=False)
with errors_shown():
    show_cache(this.weights.cache, zone)
    show_cache_check(this.cache_jobs, progress, this.clock.wall())
st.subheader("Integrity and signatures", anchor=False)
with errors_shown():
    sources = {info.spec.source for info in this.engine.instances()}
    folders = [Path(source) for source in sorted(sources) if Path(source).exists()]
    show_signatures(this.trust, folders, this.weights.policy_of_folders, this.clock.wall(), zone)
