"""Playground: chat with a model, or compare several on the same prompt and seed."""

from __future__ import annotations

import streamlit as st

from dashboard import state
from dashboard.components.chat_history import show_export, show_history
from dashboard.components.chat_stream import messages_to, stream_answers
from dashboard.components.chat_turn import show_prompt, show_turn
from dashboard.components.lanes import choose_lanes, may_show_images, ready_models, show_waiting
from dashboard.components.parameters import Lane
from dashboard.components.pictures import ask
from dashboard.resources import console
from engine.state import Answer, Conversation, TurnKind, add_answer, add_turn

home = console()
state.await_answer()
conversation = state.current_conversation(home)
show_history(home, conversation)

title, tools = st.columns([3, 4], vertical_alignment="bottom")
title.title("Playground")
with tools.container(horizontal=True, horizontal_alignment="right", vertical_alignment="bottom"):
    mode = st.segmented_control(
        "Mode", ["Chat", "Compare"], default="Chat", key="mode", bind="query-params", required=True,
        label_visibility="collapsed",
    )  # fmt: skip
    with st.popover("System prompt", icon=":material/psychology:"):
        st.text_area(
            "System prompt",
            conversation.system_prompt,
            key=f"system.{conversation.id}",
            placeholder="What the model should know and how it should answer",
            on_change=lambda: state.set_system_prompt(home, st.session_state[f"system.{conversation.id}"]),
        )
    show_export(home, conversation)

models = ready_models(home)
lanes = choose_lanes(models, is_comparison=mode == "Compare")
if not models:
    show_waiting(home)


def answer_turn(conversation: Conversation, index: int, lanes: list[Lane]) -> None:
    """Stream the answers of one turn, keep them, and draw the page anew."""
    is_kept = state.begin_answer()

    def keep(answers: tuple[Answer, ...]) -> None:
        kept = conversation
        for answer in answers:
            kept = add_answer(kept, index, answer, now_s=home.clock.wall())
        home.conversations.save(kept)
        is_kept.set()

    stream_answers(home, lanes, messages_to(home, conversation, index), keep)
    st.rerun()


asked = ask(home.images, with_images=bool(models) and may_show_images(home, lanes), is_disabled=not models)
pending = state.take_pending()
if asked is not None:
    kind = TurnKind.COMPARE if mode == "Compare" else TurnKind.CHAT
    conversation = add_turn(conversation, asked.text, now_s=home.clock.wall(), kind=kind, images=asked.images)
    home.conversations.save(conversation)
    st.query_params[state.URL_KEY] = conversation.id
    pending = len(conversation.turns) - 1

for index in range(len(conversation.turns) if pending is None else pending):
    show_turn(home, conversation, index)
if pending is not None:
    show_prompt(home, conversation, pending)
    answer_turn(conversation, pending, lanes)
elif not conversation.turns and models:
    st.caption("Ask anything: the answer streams in, with what it took underneath.")
