"""Which models had to go to make room for others, and the way back."""

from __future__ import annotations

import streamlit as st

from dashboard.components.errors import errors_shown
from dashboard.components.formats import format_bytes, format_whole_seconds, plain
from dashboard.components.times import format_ago
from engine import Engine
from engine.room import Unloaded

_SHOWN = 5


def unloaded_text(item: Unloaded, now_s: float) -> str:
    """Which, when, for whom, and why it, in Markdown."""
    return (
        f"**{plain(item.name)}** was unloaded {format_ago(item.at_s, now_s)} to make room for "
        f"**{plain(item.made_room_for)}**: nobody had used it for {format_whole_seconds(item.idle_s)}, and it held "
        f"{format_bytes(item.held_bytes)}."
    )


def show_unloaded(engine: Engine, now_s: float) -> None:
    """The last of them, with a button for each that is not loaded now; nothing where there are none."""
    unloaded = engine.unloaded()[:_SHOWN]
    if not unloaded:
        return
    st.markdown("**Unloaded to make room**")
    offered = {info.name for info in engine.instances()}
    for index, item in enumerate(unloaded):
        with st.container(horizontal=True, vertical_alignment="center"):
            st.caption(f":material/eject: {unloaded_text(item, now_s)}", width="stretch")
            if item.name not in offered and st.button(
                "Load again", key=f"load-again-{index}", icon=":material/refresh:"
            ):
                with errors_shown():
                    engine.load(item.spec)
                    st.rerun()
            offered.add(item.name)
