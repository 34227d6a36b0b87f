"""The requests that are here now, each with a way to stop it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import streamlit as st

from dashboard.components.formats import format_seconds, plain, plural
from engine import RequestInfo

SHOWN = 5


def describe_request(request: RequestInfo) -> str:
    """One line of Markdown: state, age, tokens, who asked whom."""
    state = ":green-badge[running]" if request.is_running else ":gray-badge[waiting]"
    tokens = f"{request.num_prompt_tokens:,} in · {request.num_output_tokens:,} out"
    key = f" · key {plain(request.key_id)}" if request.key_id is not None else ""
    return (
        f"{state} **{format_seconds(request.age_s)}** · {tokens}  \n"
        f":small[:gray[{plain(request.model)} · {plain(request.source)}{key} · {plain(request.request_id)}]]"
    )


def show_in_flight(requests: Sequence[RequestInfo], cancel: Callable[[str], None]) -> None:
    """The oldest requests first, `SHOWN` at most; `cancel` gets the id of the one to stop."""
    if not requests:
        st.caption("No request is running or waiting.")
    oldest_first = sorted(requests, key=lambda request: -request.age_s)
    for request in oldest_first[:SHOWN]:
        with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute", wrap=False):
            st.markdown(describe_request(request))
            st.button(
                "Cancel",
                key=f"cancel-{request.request_id}",
                on_click=cancel,
                args=(request.request_id,),
                icon=":material/cancel:",
            )
    if len(oldest_first) > SHOWN:
        st.caption(f"and {plural(len(oldest_first) - SHOWN, 'more request')}, newer than these")
