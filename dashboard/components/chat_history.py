"""The list of conversations in the sidebar, and the export of the current one."""

from __future__ import annotations

import streamlit as st

from dashboard import state
from engine import Console
from engine.state import Conversation, to_json, to_markdown

_NUM_SHOWN = 30


def show_history(console: Console, current: Conversation) -> None:
    """New, recent conversations, delete with undo."""
    with st.sidebar:
        st.button(
            "New conversation",
            icon=":material/add:",
            width="stretch",
            key="history.new",
            on_click=state.open_conversation,
            args=(None,),
        )
        _offer_undo(console)
        for summary in console.conversations.list(_NUM_SHOWN):
            is_current = summary.id == current.id
            title, delete = st.columns([5, 1], vertical_alignment="center", gap="small")
            title.button(
                summary.title or "Untitled",
                key=f"history.open.{summary.id}",
                type="secondary" if is_current else "tertiary",
                width="stretch",
                on_click=state.open_conversation,
                args=(summary.id,),
            )
            delete.button(
                "",
                icon=":material/delete:",
                key=f"history.delete.{summary.id}",
                type="tertiary",
                help="Delete this conversation",
                on_click=state.delete_conversation,
                args=(console, summary.id),
            )


def _offer_undo(console: Console) -> None:
    deleted = state.last_deleted()
    if deleted is not None:
        st.button(
            "Undo delete",
            icon=":material/undo:",
            key="history.undo",
            width="stretch",
            on_click=state.undo_delete,
            args=(console, deleted),
        )
        st.caption(kept_text(console.settings.deleted_conversation_days))


def kept_text(days: float) -> str:
    """What becomes of a deleted conversation."""
    length = "a day" if days == 1 else f"{days:g} days"
    return f"What is deleted is gone for good after {length}, pictures included."


def show_export(console: Console, conversation: Conversation) -> None:
    """Download the conversation as JSON or Markdown."""
    with st.popover("Export", icon=":material/download:", disabled=not conversation.turns):
        name = f"conversation-{conversation.id[:8]}"
        st.download_button(
            "JSON",
            lambda: to_json(conversation, console.images.read),
            f"{name}.json",
            "application/json",
            on_click="ignore",
            width="stretch",
        )
        st.download_button(
            "Markdown",
            lambda: to_markdown(conversation),
            f"{name}.md",
            "text/markdown",
            on_click="ignore",
            width="stretch",
        )
