"""The form that tests and adds a remote instance. The session forgets a typed key once it is stored."""

from __future__ import annotations

import streamlit as st

from dashboard.components.errors import errors_shown, show_error
from dashboard.components.formats import format_count, format_seconds, plain
from engine.gateway import Gateway
from engine.remote import RemoteSpec, Trial
from engine.scheduling.router import Feature

_KEY = "remote-secret"
_IS_USED = "remote-secret-is-used"
_ADDED = "remote-added"
_DEFAULT = RemoteSpec("", "", "")


def show_remote_form(gateway: Gateway) -> None:
    """Ask for a server, test it, add it; what was typed stays where it was refused."""
    if st.session_state.pop(_IS_USED, False):
        st.session_state[_KEY] = ""
    with st.container(border=True):
        spec = _choose_spec()
        with st.container(horizontal=True):
            is_added = st.button("Add", type="primary", icon=":material/add:", key="remote-add")
            is_tested = st.button("Test", icon=":material/network_check:", key="remote-test")
        if is_added:
            _add(gateway, spec)
        if is_tested:
            with errors_shown():
                _show_trial(gateway.remotes.test(spec, _typed_key()), spec)
        if (name := st.session_state.pop(_ADDED, None)) is not None:
            st.success(f"**{plain(name)}** is added; its state is in the list.", icon=":material/check:")


def _choose_spec() -> RemoteSpec:
    name = st.text_input("Name", key="remote-name", placeholder="qwen-h200", help="What clients and routes call it.")
    url = st.text_input(
        "Base URL",
        key="remote-url",
        placeholder="http://10.0.0.7:8000/v1",
        help="Of vLLM, SGLang, llama.cpp, another console, or any server that speaks OpenAI's API.",
    )
    model = st.text_input("Model there", key="remote-model", placeholder="Qwen/Qwen3-8B", help="Its id at that server.")
    variable = _choose_key()
    with st.expander("What it can, and how long to wait", icon=":material/tune:"):
        features = st.multiselect(
            "It can do",
            list(Feature),
            [Feature.TEXT],
            format_func=str,
            key="remote-features",
            help="Requests that need something else are not sent there.",
        )
        context = st.number_input(
            "Context length", 1, None, None, key="remote-context", placeholder="as the server says, if it does"
        )
        bits = st.number_input(
            "Bits a weight",
            1.0,
            64.0,
            None,
            key="remote-bits",
            placeholder="unknown",
            help="16 for bfloat16, about 4.5 for 4-bit: what `:quality`, `:balanced` and `:fast` go by.",
        )
        running = st.number_input("Requests at once", 1, 4096, _DEFAULT.max_running, key="remote-running")
        every = st.number_input("Check every, seconds", 0.5, 3600.0, _DEFAULT.check_every_s, key="remote-every")
        timeout = st.number_input("A check may take, seconds", 0.5, 60.0, _DEFAULT.check_timeout_s, key="remote-wait")
        silence = st.number_input(
            "Silence while it answers, seconds",
            1.0,
            3600.0,
            _DEFAULT.silence_s,
            key="remote-silence",
            help="After so long without a byte the request has failed, and goes elsewhere if it can.",
        )
    return RemoteSpec(
        name.strip(),
        url.strip(),
        model.strip(),
        variable,
        context,
        frozenset(features),
        bits,
        running,
        every,
        timeout,
        silence,
    )


def _choose_key() -> str | None:
    """The variable's name. A typed key stays in its widget: see `_typed_key`."""
    kind = st.segmented_control(
        "API key", ["none", "variable", "stored"], default="none", required=True, key="remote-key-kind"
    )
    if kind == "variable":
        return st.text_input(
            "Environment variable", key="remote-variable", placeholder="VLLM_API_KEY", help="Of the console's process."
        ).strip()
    if kind == "stored":
        st.text_input(
            "Key",
            type="password",
            key=_KEY,
            help="Kept in the console's state, readable by whoever can read its home folder; never shown again.",
        )
    return None


def _typed_key() -> str | None:
    return str(st.session_state.get(_KEY) or "").strip() or None


def _add(gateway: Gateway, spec: RemoteSpec) -> None:
    """Then the page runs anew, with the key forgotten."""
    with errors_shown():
        st.session_state[_ADDED] = gateway.remotes.add(spec, _typed_key()).name
        st.session_state[_IS_USED] = True
        st.rerun()


def _show_trial(trial: Trial, spec: RemoteSpec) -> None:
    if trial.error is not None:
        show_error(trial.error)
        return
    names = ", ".join(
        f"{model.id} ({format_count(model.context_length)} tokens)" if model.context_length else model.id
        for model in trial.models
    )
    text = f"It answered in {format_seconds(trial.took_s)} and has: {plain(names or 'no model')}"
    if any(model.id == spec.model for model in trial.models):
        st.success(text, icon=":material/check:")
    else:
        st.warning(f"{text}. That is not {plain(repr(spec.model))}.", icon=":material/warning:")
