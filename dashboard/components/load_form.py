"""The form that loads another model."""

from __future__ import annotations

from typing import get_args

import streamlit as st

from dashboard.components.errors import errors_shown
from dashboard.components.formats import plain
from engine import Engine, ModelSpec
from engine.models.spec import Device, DType
from engine.weights.sources import SAMPLE


def show_load_form(engine: Engine) -> None:
    """Ask for a model and begin to load it; what was typed stays where it was refused."""
    with st.form("load-model"):
        source = st.text_input(
            "Source",
            placeholder="/models/AutoGLM-Phone-9B",
            help=f"The path of a model folder or of a .gguf file on the console's machine, or `{SAMPLE}`.",
            key="load-source",
        )
        name = st.text_input(
            "Name", placeholder="the source's own name", help="What API clients call it.", key="load-name"
        )
        with st.container(horizontal=True):
            device = st.selectbox(
                "Device", get_args(Device), help="`auto` takes a GPU where there is one.", key="load-device"
            )
            dtype = st.selectbox(
                "Weights as",
                get_args(DType),
                help="`auto` is float32 on a CPU and bfloat16 on a GPU.",
                key="load-dtype",
            )
        is_submitted = st.form_submit_button("Load model", type="primary", icon=":material/add:", key="load-submit")
    if is_submitted:
        _load(engine, source.strip(), name.strip(), device, dtype)


def _load(engine: Engine, source: str, name: str, device: Device, dtype: DType) -> None:
    if not source:
        st.error(
            f"Source is empty: give the path of a model folder or of a .gguf file, or `{SAMPLE}`.",
            icon=":material/error:",
        )
        return
    with errors_shown():
        loaded = engine.load(ModelSpec(source, name or None, device, dtype))
        st.success(f"**{plain(loaded)}** is loading; its progress is in the list.", icon=":material/check:")
