"""What a smaller model costs in quality, and gains in speed and size; and saving it so."""

from __future__ import annotations

import streamlit as st

from dashboard.components.errors import errors_shown
from dashboard.components.formats import format_seconds, plain
from dashboard.components.lab_actions import show_actions
from dashboard.components.lab_answers import show_answers
from dashboard.components.lab_charts import show_charts
from dashboard.components.lab_form import show_form
from dashboard.components.lab_history import chosen_experiment, name_running, show_history
from dashboard.components.lab_run import show_progress
from dashboard.components.lab_table import show_tables
from dashboard.components.lab_variants import ability_of
from dashboard.components.past_runs import open_run
from dashboard.components.quantize_form import saved_folder, show_quantize
from dashboard.components.times import browser_zone, format_moment
from dashboard.resources import console
from engine.lab import Experiment

this = console()
lab, device, zone = this.lab, this.settings.device, browser_zone()


def show_experiment(experiment: Experiment) -> None:
    st.subheader("Results", anchor=False)
    st.caption(
        f"{plain(experiment.plan.source)} · {plain(format_moment(experiment.started_at_s, zone))} · "
        f"{experiment.status} · took {format_seconds(experiment.took_s or None)}"
    )
    if not experiment.results:
        st.info("No variant had ended when this experiment did.", icon=":material/info:")
        return
    show_tables(experiment, key=experiment.id)
    show_actions(experiment, this.engine, zone)
    show_charts(experiment)
    st.subheader("Answers", anchor=False)
    show_answers(experiment)


st.title("Quantization", anchor=False)
st.caption(
    "Variants of one model, each loaded alone and compared with the original. Speeds are comparable only while this "
    "machine is quiet: send no requests meanwhile."
)
progress, saving = lab.progress(), this.quantizing.progress()  # before what the work changes is read
ability = ability_of(this.nvml.read(), device)
with errors_shown():
    begun = show_form(lab, this.engine, device, ability, is_running=progress is not None)
    if begun is not None:
        open_run(begun)
        st.rerun()
    name_running(progress)
    show_progress(lab, progress)
    chosen = chosen_experiment(lab, progress)
    if chosen is not None:
        show_experiment(chosen)
    elif progress is None:
        st.info("No experiment yet: choose variants and run one.", icon=":material/science:")
    st.subheader("Experiments", anchor=False)
    show_history(lab, progress, zone)
st.subheader("Quantize and save", anchor=False)
show_quantize(this.quantizing, this.engine, saved_folder(this.settings.home), saving)
