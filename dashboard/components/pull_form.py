"""Pulling a model into the weights cache, without loading it."""

from __future__ import annotations

import streamlit as st

from dashboard.components.errors import errors_shown, show_error
from dashboard.components.fit import show_fit
from dashboard.components.formats import format_bytes, plain, plural
from dashboard.components.job_progress import follow_job
from dashboard.components.links import link_to_load
from engine import ModelSpec
from engine.errors import WeightsError
from engine.models.plan_text import headline
from engine.models.planner import Planner
from engine.staged_job import StageProgress
from engine.weights.pull import Pulled, Pulls
from engine.weights.sources import SAMPLE

_EMPTY = f"Model is empty: give a hub id (org/name@revision), the path of a .gguf file, or {SAMPLE}."
_HELP = (
    f"A hub id: `org/name`, `org/name@revision`, `org/name:file.gguf`; the path of a .gguf file on the console's "
    f"machine; or `{SAMPLE}`. Whether it fits and how much a pull downloads is read from headers. A pull that was "
    "cancelled goes on where it stopped."
)
_FIT = "pull-fit"


def show_pull(pulls: Pulls, planner: Planner, progress: StageProgress | None) -> None:
    """Ask for a model, say what pulling it downloads and whether it fits, pull it, follow that, and show what came of
    it. `progress` was read before the cache was."""
    with st.form("pull"):
        source = st.text_input("Model", key="pull-source", placeholder="org/name@revision", help=_HELP).strip()
        with st.container(horizontal=True):
            is_busy = progress is not None
            is_submitted = st.form_submit_button(
                "Pull", key="pull-submit", type="primary", icon=":material/download:", disabled=is_busy
            )
            is_asked = st.form_submit_button("Does it fit?", key="pull-plan", icon=":material/memory:")
    if (is_submitted or is_asked) and not source:
        show_error(_EMPTY)
    elif is_asked:
        show_fit(planner, ModelSpec(source), key="pull-plan")
    elif is_submitted:
        with errors_shown():
            pulls.pull(source)
            st.rerun()
    follow_job(pulls, progress, bar, key="pull", when_cancelled=None)
    if progress is None:
        _show_end(pulls, planner)


def bar(progress: StageProgress) -> tuple[float, str]:
    """`org/name: downloading 1.2 of 3.4 GB, 120 MB/s, 18 s left`; the share of what has no bytes in percent."""
    share = (
        "" if progress.fraction is None or progress.stage.startswith("downloading") else f", {progress.fraction:.0%}"
    )
    return progress.fraction or 0.0, plain(f"{progress.subject}: {progress.stage}{share}")


def _show_end(pulls: Pulls, planner: Planner) -> None:
    pulled = pulls.report()
    if pulls.error is not None:
        show_error(pulls.error)
    elif pulls.is_cancelled and pulled is None:
        st.caption(f"The pull of {plain(pulls.subject or '')} was cancelled. What has arrived is kept: pull it again.")
    elif pulled is not None:
        st.success(pulled_text(pulled), icon=":material/check_circle:")
        st.caption(f"{plain(str(pulled.folder))}  \n{plain(_fit_text(pulled, planner))}")
        link_to_load(pulled.source)


def pulled_text(pulled: Pulled) -> str:
    """What is here now, in Markdown."""
    files = plural(len(pulled.files), "file")
    return (
        f"**{plain(pulled.source)}** is here: {format_bytes(pulled.size_bytes)} in {files}, revision {pulled.revision}."
    )


def _fit_text(pulled: Pulled, planner: Planner) -> str:
    """Whether it fits, as it was when the pull was first seen to have ended: a page is drawn often, a plan reads every
    header."""
    kept = st.session_state.get(_FIT)
    if kept is None or kept[0] is not pulled:
        kept = st.session_state[_FIT] = (pulled, _plan_text(pulled, planner))
    text: str = kept[1]
    return text


def _plan_text(pulled: Pulled, planner: Planner) -> str:
    try:
        return f"{headline(planner.plan(ModelSpec(pulled.source)))}."
    except WeightsError as error:
        return f"Whether it fits cannot be told: {error}."
