"""The loaded models, what they hold, and how to load or unload one."""

from __future__ import annotations

import streamlit as st

from dashboard.components.instance_actions import show_actions, show_asked
from dashboard.components.instance_details import show_instance_details
from dashboard.components.load_form import show_load_form
from dashboard.resources import console

this = console()


@st.fragment(run_every=1)
def show_instances() -> None:
    instances, now_s = this.engine.instances(), this.clock.wall()
    if not instances:
        st.info("No model is loaded: load one with the form.", icon=":material/info:")
    for info in instances:
        with st.container(border=True):
            show_instance_details(info, now_s)
            show_actions(this.engine, info)


st.title("Models", anchor=False)
loaded, another = st.columns([3, 2], gap="large")
with another:
    st.subheader("Load a model", anchor=False)
    show_load_form(this.engine)
with loaded:
    st.subheader("Loaded here", anchor=False)
    show_instances()
show_asked(this.engine)
