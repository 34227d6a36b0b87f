"""The loaded models, what they hold, and how to load or unload one."""

from __future__ import annotations

import streamlit as st

from dashboard.components.instance_actions import show_actions, show_asked
from dashboard.components.instance_details import show_instance_details
from dashboard.components.load_form import show_load_form
from dashboard.components.unloaded import show_unloaded
from dashboard.resources import console
from engine import InstanceState
from engine.instance import Role

FAILED = InstanceState.FAILED
this = console()


@st.fragment(run_every=1)
def show_instances() -> None:
    instances, now_s = this.engine.instances(), this.clock.wall()
    if not instances:
        st.info("No model is loaded: load one with the form.", icon=":material/info:")
    swapping = {info.name for info in instances if info.role is not Role.SERVING and info.state is not FAILED}
    for info in instances:
        with st.container(border=True, key=f"instance-{info.name}-{info.version}"):
            show_instance_details(info, now_s)
            show_actions(this.engine, info, is_swapping=info.name in swapping)
    show_unloaded(this.engine, now_s)


st.title("Models", anchor=False)
loaded, another = st.columns([3, 2], gap="large")
with another:
    st.subheader("Load a model", anchor=False)
    show_load_form(this.engine, this.planner)
with loaded:
    st.subheader("Loaded here", anchor=False)
    show_instances()
show_asked(this.engine)
