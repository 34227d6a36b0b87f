"""A decision of the router in words: who answers, and for each candidate why it is in or out."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, tzinfo

import streamlit as st

from dashboard.components.formats import DASH, format_seconds, plain
from engine.gateway import Decided
from engine.scheduling.router import Decision, Verdict

SHOWN = 8
_SMALLEST_SHOWN = 0.005


def verdict_line(verdict: Verdict, chosen: str | None) -> str:
    """A candidate as a line of a Markdown list."""
    name = f"**{plain(verdict.instance)}**"
    if not verdict.is_able:
        return f"- :red[:material/block:] {name}: {plain(verdict.reason)}"
    icon = (
        ":green[:material/check_circle:]" if verdict.instance == chosen else ":gray[:material/radio_button_unchecked:]"
    )
    counting = [part for part in verdict.parts if abs(part.value) >= _SMALLEST_SHOWN]
    parts = " + ".join(f"{part.name} {part.value:.2f} ({plain(part.note)})" for part in counting)
    cost = f"cost {verdict.cost:.2f}" + (f" = {parts}" if parts else "")
    return f"- {icon} {name}: {plain(verdict.reason)} · {cost}"


def headline(decision: Decision) -> str:
    """`chat → m`, as Markdown."""
    return f"{plain(decision.model)} → **{plain(decision.instance or DASH)}**"


def show_decision(decision: Decision) -> None:
    """Who would answer, why, and all candidates."""
    if decision.instance is None:
        st.error(plain(decision.reason), icon=":material/block:")
    else:
        st.success(f"**{plain(decision.instance)}** answers: {plain(decision.reason)}", icon=":material/alt_route:")
    st.markdown("\n".join(verdict_line(verdict, decision.instance) for verdict in decision.verdicts))


def show_decisions(decided: Sequence[Decided], zone: tzinfo) -> None:
    """The last ones, newest first; each opens on its candidates."""
    if not decided:
        st.caption("Nothing was routed yet. Send a request, and it appears here with its reasons.")
    for one in decided[:SHOWN]:
        decision = one.decision
        moment = datetime.fromtimestamp(one.at_s, zone).strftime("%H:%M:%S")
        icon = ":material/block:" if decision.instance is None else ":material/alt_route:"
        with st.expander(
            f"{moment} · {headline(decision)} · {plain(decision.reason)}",
            icon=icon,
            key=f"decision-{one.request_id}-{one.at_s}",
            on_change="rerun",  # so that it is known by its key: others come before it every moment
        ):
            st.markdown("\n".join(verdict_line(verdict, decision.instance) for verdict in decision.verdicts))
            st.caption(f"{plain(one.request_id)} · decided in {format_seconds(one.took_s)}")
