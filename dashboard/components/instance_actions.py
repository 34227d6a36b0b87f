"""Unload and reload. Unloading asks first, because it ends what others are waiting for."""

from __future__ import annotations

from dataclasses import replace

import streamlit as st

from dashboard.components.errors import errors_shown
from dashboard.components.formats import plain, plural
from engine import Engine, InstanceInfo, InstanceState

DRAIN_S = 5.0
_TO_UNLOAD = "instance_to_unload"


def reload(engine: Engine, info: InstanceInfo) -> None:
    """Load a failed instance again under its name, at once instead of when its pause is over.

    Raises:
        WeightsError: the model is not there any more.
        InstanceNotFoundError, InstanceExistsError: somebody else was faster.
    """
    if info.retry_at_s is not None:
        engine.unload(info.name, drain_s=0.0)
    engine.load(replace(info.spec, name=info.name))


def show_actions(engine: Engine, info: InstanceInfo) -> None:
    """The buttons of one instance. Their questions and errors appear outside a fragment that refreshes by itself,
    which would wipe them away: see `show_asked`."""
    with st.container(horizontal=True):
        if info.state is InstanceState.FAILED and st.button(
            "Reload", key=f"reload-{info.name}", icon=":material/refresh:"
        ):
            with errors_shown():
                reload(engine, info)
                st.rerun()
        if st.button(
            "Unload",
            key=f"unload-{info.name}",
            icon=":material/eject:",
            disabled=info.state is InstanceState.DRAINING,
        ):
            st.session_state[_TO_UNLOAD] = info.name
            st.rerun()


def show_asked(engine: Engine) -> None:
    """Ask about the unload that was clicked, until it is answered."""
    name = st.session_state.get(_TO_UNLOAD)
    if name is not None:
        _confirm_unload(engine, name)


def _forget_asked() -> None:
    st.session_state.pop(_TO_UNLOAD, None)


@st.dialog("Unload this model?", icon=":material/eject:", on_dismiss=_forget_asked)
def _confirm_unload(engine: Engine, name: str) -> None:
    num_here = sum(request.model == name for request in engine.requests())
    st.markdown(f"**{plain(name)}** leaves memory and answers no more requests until it is loaded again.")
    if num_here:
        st.markdown(
            f"{plural(num_here, 'request')} of it {'is' if num_here == 1 else 'are'} here now: what has not ended"
            f" after {DRAIN_S:g} s is cancelled."
        )
    with st.container(horizontal=True):
        is_confirmed = st.button("Unload", type="primary", key="unload-confirmed")
        is_refused = st.button("Keep it", key="unload-refused")
    if is_confirmed:
        with errors_shown():
            with st.spinner("Unloading…"):
                engine.unload(name, drain_s=DRAIN_S)
            _forget_asked()
            st.rerun()
    if is_refused:
        _forget_asked()
        st.rerun()
