"""Unload, reload and swap. What takes something from others asks first."""

from __future__ import annotations

from dataclasses import replace

import streamlit as st

from dashboard.components.errors import errors_shown
from dashboard.components.formats import plain, plural
from dashboard.components.load_form import is_complete
from dashboard.components.question import Question
from dashboard.components.spec_form import choose_spec
from engine import Engine, InstanceInfo, InstanceState
from engine.instance import Role

DRAIN_S = 5.0
SWAP_DRAIN_S = 30.0
_UNLOAD = Question("instance_to_unload")
_SWAP = Question("instance_to_swap")


def reload(engine: Engine, info: InstanceInfo) -> None:
    """Load a failed instance again under its name, at once instead of when its pause is over.

    Raises:
        WeightsError: the model is not there any more.
        InstanceNotFoundError, InstanceExistsError: somebody else was faster.
    """
    if info.retry_at_s is not None:
        engine.unload(info.name, drain_s=0.0)
    engine.load(replace(info.spec, name=info.name), is_pinned=info.is_pinned)


def show_actions(engine: Engine, info: InstanceInfo, *, is_swapping: bool = False) -> None:
    """The buttons of one version. Their questions and errors appear outside a fragment that refreshes by itself,
    which would wipe them away: see `show_asked`."""
    if info.role is Role.NEXT:
        _show_swap_end(engine, info)
    if info.role is not Role.SERVING:
        return
    with st.container(horizontal=True, vertical_alignment="center"):
        if info.state is InstanceState.FAILED and st.button(
            "Reload", key=f"reload-{info.name}", icon=":material/refresh:", disabled=is_swapping
        ):
            with errors_shown():
                reload(engine, info)
                st.rerun()
        is_draining = info.state is InstanceState.DRAINING
        _ask_button("Swap", ":material/swap_horiz:", _SWAP, info, is_swapping or is_draining)
        _ask_button("Unload", ":material/eject:", _UNLOAD, info, is_draining)
        if engine.unload_idle:
            _show_pin(engine, info)


def _ask_button(label: str, icon: str, question: Question, info: InstanceInfo, disabled: bool) -> None:
    if st.button(label, key=f"{label.lower()}-{info.name}", icon=icon, disabled=disabled):
        question.ask(info.name)
        st.rerun()


def _show_pin(engine: Engine, info: InstanceInfo) -> None:
    """The engine's word counts, not what this session saw last: others pin too."""
    key = f"pin-{info.name}"

    def pin() -> None:
        with errors_shown():
            engine.pin(info.name, st.session_state[key])

    st.session_state[key] = info.is_pinned
    st.toggle("Keep loaded", key=key, on_change=pin, help="Never unload it to make room for another model.")


def _show_swap_end(engine: Engine, info: InstanceInfo) -> None:
    label = "Dismiss" if info.state is InstanceState.FAILED else "Cancel swap"
    if st.button(label, key=f"end-swap-{info.name}", icon=":material/close:"):
        with errors_shown():
            engine.cancel_swap(info.name)
            st.rerun()


def show_asked(engine: Engine) -> None:
    """Ask about what was clicked, until it is answered."""
    if (name := _UNLOAD.about) is not None:
        _confirm_unload(engine, name)
    elif (name := _SWAP.about) is not None:
        _ask_for_swap(engine, name)


@st.dialog("Unload this model?", icon=":material/eject:", on_dismiss=_UNLOAD.forget)
def _confirm_unload(engine: Engine, name: str) -> None:
    num_here = sum(request.model == name for request in engine.requests())
    st.markdown(f"**{plain(name)}** leaves memory and answers no more requests until it is loaded again.")
    if num_here:
        st.markdown(
            f"{plural(num_here, 'request')} of it {'is' if num_here == 1 else 'are'} here now: what has not ended"
            f" after {DRAIN_S:g} s is cancelled."
        )
    if _UNLOAD.is_confirmed("Unload", "Keep it", "unload"):
        with errors_shown():
            with st.spinner("Unloading…"):
                engine.unload(name, drain_s=DRAIN_S)
            _UNLOAD.close()


@st.dialog("Swap this model", icon=":material/swap_horiz:", on_dismiss=_SWAP.forget)
def _ask_for_swap(engine: Engine, name: str) -> None:
    present = next((info for info in engine.serving() if info.name == name), None)
    if present is None:
        st.info(f"**{plain(name)}** is not loaded any more.", icon=":material/info:")
        return
    st.markdown(
        f"**{plain(name)}** answers on while the next version is loaded beside it and warmed up. Then that one answers,"
        f" and requests of the old one get {SWAP_DRAIN_S:g} s to end. For that time both need memory."
    )
    spec = choose_spec(f"swap-{name}-{present.version}", present.spec, engine.settings.max_running)
    if _SWAP.is_confirmed("Swap", "Keep it", "swap") and is_complete(spec):
        with errors_shown():
            engine.swap(name, spec, SWAP_DRAIN_S)
            _SWAP.close()
