"""Try a request against the rules without sending it."""

from __future__ import annotations

import streamlit as st

from dashboard.components.errors import errors_shown
from dashboard.components.serving_decision import show_decision
from engine.gateway import Gateway
from engine.scheduling.router import AUTO, Ask, Feature, Precision

_ANY = "any"
_NEEDS = (Feature.STRUCTURED_OUTPUT, Feature.TOOLS, Feature.IMAGES)


def model_options(gateway: Gateway) -> list[str]:
    """What can be asked for, also what cannot answer now: routes, instances, `auto`."""
    routes = [by.name for by in gateway.routes.all()]
    return list(dict.fromkeys([*routes, *(candidate.name for candidate in gateway.candidates()), AUTO]))


def show_try(gateway: Gateway) -> None:
    """The form, and under it what would be decided now."""
    with st.form("try-request"):
        ask = _choose_ask(gateway)
        is_asked = st.form_submit_button("Who would answer?", icon=":material/alt_route:", key="try-submit")
    if is_asked:
        with errors_shown():
            show_decision(gateway.decide(ask))


def _choose_ask(gateway: Gateway) -> Ask:
    model = st.selectbox("Model", model_options(gateway), key="try-model", accept_new_options=True)
    with st.container(horizontal=True):
        prompt = st.number_input("Prompt tokens", 0, None, 100, key="try-prompt", width=150)
        answer = st.number_input("Answer tokens", 1, None, None, key="try-answer", placeholder="not said", width=150)
    needs = st.multiselect("It needs", _NEEDS, format_func=str, key="try-needs", placeholder="Text alone")
    precision = st.segmented_control(
        "Precision", [_ANY, *(one.value for one in Precision)], default=_ANY, required=True, key="try-precision"
    )
    key = st.text_input(
        "Conversation",
        key="try-key",
        placeholder="any text",
        help="With weights it decides where the request falls: the same text falls alike, different texts by weight.",
    )
    return Ask(
        str(model or ""),
        prompt,
        answer,
        frozenset({Feature.TEXT, *needs}),
        None if precision in (None, _ANY) else Precision(precision),
        key,
    )
