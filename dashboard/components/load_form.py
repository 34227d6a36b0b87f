"""The form that loads another model."""

from __future__ import annotations

from dataclasses import replace

import streamlit as st

from dashboard.components.errors import errors_shown
from dashboard.components.fit import show_fit
from dashboard.components.formats import plain
from dashboard.components.links import SOURCE_PARAM
from dashboard.components.spec_form import choose_spec
from engine import Engine, ModelSpec
from engine.models.planner import Planner
from engine.weights.sources import SAMPLE

_EMPTY = f"Source is empty: give the path of a model folder or of a .gguf file, or `{SAMPLE}`."


def show_load_form(engine: Engine, planner: Planner) -> None:
    """Ask for a model, plan its memory, and begin to load it; what was typed stays where it was refused. The URL may
    name the source."""
    with st.container(border=True):
        name = st.text_input(
            "Name", placeholder="the source's own name", help="What API clients call it.", key="load-name"
        ).strip()
        spec = choose_spec("load", ModelSpec(st.query_params.get(SOURCE_PARAM, "")), engine.settings.max_running)
        is_pinned = engine.unload_idle and st.checkbox(
            "Keep it loaded", key="load-pinned", help="Never unload it to make room for another model."
        )
        with st.container(horizontal=True):
            is_submitted = st.button("Load model", type="primary", icon=":material/add:", key="load-submit")
            is_asked = st.button("Does it fit?", icon=":material/memory:", key="load-plan")
    if is_asked and is_complete(spec):
        show_fit(planner, spec, key="memory-plan")
    if is_submitted:
        _load(engine, replace(spec, name=name or None), is_pinned)


def is_complete(spec: ModelSpec) -> bool:
    """Whether a source was typed; says so where none was."""
    if not spec.source:
        st.error(_EMPTY, icon=":material/error:")
    return bool(spec.source)


def _load(engine: Engine, spec: ModelSpec, is_pinned: bool) -> None:
    if not is_complete(spec):
        return
    with errors_shown():
        loaded = engine.load(spec, is_pinned=is_pinned)
        st.success(f"**{plain(loaded)}** is loading; its progress is in the list.", icon=":material/check:")
