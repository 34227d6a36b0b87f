"""Ways from one page to another."""

from __future__ import annotations

from collections.abc import Mapping

import streamlit as st

# No name of a widget that another page binds to the URL: Streamlit would take it out of the URL on the way.
SOURCE_PARAM = "load"
_ICON = ":material/arrow_forward:"


def page_file(name: str) -> str:
    """A page by its name, as the entrypoint's folder sees it."""
    return f"../pages/{name}.py"


def link_to(name: str, label: str, query: Mapping[str, str] | None = None) -> None:
    """A quiet link to the page `name`, with `query` in its URL."""
    st.page_link(page_file(name), label=label, icon=_ICON, icon_position="right", query_params=dict(query or {}))


def link_to_load(source: str) -> None:
    """The way to the form that loads `source`, filled in."""
    link_to("models", "Load it", {SOURCE_PARAM: source})


def show_heading(title: str, page: str, label: str) -> None:
    """A section's title with the link to its page at the far end of the line."""
    with st.container(horizontal=True, horizontal_alignment="distribute", vertical_alignment="center"):
        st.subheader(title, anchor=False, width="content")
        link_to(page, label)


def show_title(title: str, is_ready: bool) -> None:
    """The page's title and, once a model can answer, the way to talk to it."""
    with st.container(horizontal=True, horizontal_alignment="distribute", vertical_alignment="center"):
        st.title(title, anchor=False, width="content")
        if is_ready and st.button("Open the playground", type="primary", icon=":material/chat:"):
            st.switch_page(page_file("playground"))
