"""What one browser session remembers: the conversation it is in, and what it was just asked to do.

A conversation lives in the store and its id in the URL, so a reload, another tab or a shared link finds it. Only one
that has no turn yet lives in the session. Storing works even while Streamlit is ending the script, when every access
to the session state raises; so an answer that was stopped is kept.
"""

from __future__ import annotations

import threading
from dataclasses import replace

import streamlit as st

from engine import Console
from engine.state import Conversation, new_conversation

URL_KEY = "c"
_EMPTY = "playground.empty_conversation"
_PENDING = "playground.pending_turn"
_EDITING = "playground.editing_turn"
_DELETED = "playground.deleted"
_ANSWER_KEPT = "playground.answer_kept"
_KEEP_WAIT_S = 10.0


def current_conversation(console: Console) -> Conversation:
    """The conversation that the URL names, else the session's new one."""
    named = st.query_params.get(URL_KEY)
    found = None if named is None else console.conversations.get(named)
    if found is not None:
        return found
    if named is not None:
        st.warning("This conversation was deleted, or never was here. A new one is open.")
        st.query_params.pop(URL_KEY, None)
    if _EMPTY not in st.session_state:
        st.session_state[_EMPTY] = new_conversation(now_s=console.clock.wall())
    empty: Conversation = st.session_state[_EMPTY]
    return empty


def open_conversation(conversation_id: str | None) -> None:
    """Go to a stored conversation, or with None to a new one."""
    for name in (_PENDING, _EDITING, _EMPTY):
        st.session_state.pop(name, None)
    st.query_params.pop(URL_KEY, None)
    if conversation_id is not None:
        st.query_params[URL_KEY] = conversation_id


def set_system_prompt(console: Console, text: str) -> None:
    """Change the system prompt of the current conversation."""
    conversation = replace(current_conversation(console), system_prompt=text, updated_at_s=console.clock.wall())
    if conversation.turns:
        console.conversations.save(conversation)
    else:
        st.session_state[_EMPTY] = conversation


def delete_conversation(console: Console, conversation_id: str) -> None:
    """Delete, so that it can be undone."""
    console.delete_conversation(conversation_id)
    st.session_state[_DELETED] = conversation_id
    if st.query_params.get(URL_KEY) == conversation_id:
        open_conversation(None)


def last_deleted() -> str | None:
    """The conversation deleted last in this session, None when that was undone."""
    deleted: str | None = st.session_state.get(_DELETED)
    return deleted


def undo_delete(console: Console, conversation_id: str) -> None:
    """Bring a deleted conversation back and open it."""
    console.conversations.restore(conversation_id)
    st.session_state.pop(_DELETED, None)
    open_conversation(conversation_id)


def request_answer(turn: int) -> None:
    """Have the next run of the page answer this turn."""
    st.session_state[_PENDING] = turn
    st.session_state.pop(_EDITING, None)


def take_pending() -> int | None:
    """The turn to answer now, once."""
    turn: int | None = st.session_state.pop(_PENDING, None)
    return turn


def begin_answer() -> threading.Event:
    """Announce an answer that is being streamed; whoever streams sets the event once it is stored."""
    kept = threading.Event()
    st.session_state[_ANSWER_KEPT] = kept
    return kept


def await_answer() -> None:
    """Wait until the answer that this session was streaming is stored. Streamlit starts the next run of a page while
    the one before is still being ended, and what that one wrote belongs on the page."""
    kept: threading.Event | None = st.session_state.get(_ANSWER_KEPT)
    if kept is not None:
        kept.wait(_KEEP_WAIT_S)


def edit_turn(turn: int | None) -> None:
    """Open the editor on a turn's prompt, or close it."""
    st.session_state[_EDITING] = turn


def edited_turn() -> int | None:
    """The turn whose prompt is being edited."""
    turn: int | None = st.session_state.get(_EDITING)
    return turn
