"""What the pages share, and how they get at it. The only functions under `st.cache_resource` are here.

The server opens the console before the first page runs and hands it over; where there is no server (a page under
test), the first page opens one with the settings in force.
"""

from __future__ import annotations

import streamlit as st

from engine import Console, load_settings, open_console

_given: list[Console] = []


def give_console(console: Console | None) -> None:
    """Hand over the process's console; None takes it back at shutdown."""
    _given.clear()
    if console is not None:
        _given.append(console)


def console() -> Console:
    """The console of this process."""
    return _given[0] if _given else _open_own()


@st.cache_resource(show_spinner=False)
def _open_own() -> Console:
    return open_console(load_settings())
