"""One turn of a conversation as it is drawn: the prompt, its answers, what they took, and what can be done next."""

from __future__ import annotations

import streamlit as st

from dashboard import state
from dashboard.components.chat_stream import restore_parameters
from dashboard.components.code_view import as_curl, as_python, request_body
from dashboard.components.formats import DASH, format_rate, format_seconds
from dashboard.components.pictures import show_pictures
from dashboard.components.token_view import tokens_as_html
from engine import Console
from engine.state import Answer, Conversation, Turn, TurnKind, fork_at, messages, select_answer
from engine.state.api_keys import Scope


def show_turn(console: Console, conversation: Conversation, index: int) -> None:
    """Draw a turn that is not being written."""
    turn = conversation.turns[index]
    show_prompt(console, conversation, index)
    if turn.kind is TurnKind.COMPARE and len(turn.answers) > 1:
        for place, column in enumerate(st.columns(len(turn.answers))):
            with column:
                _show_answer(console, conversation, index, place)
    elif turn.answers:
        _show_answer(console, conversation, index, turn.selected)
    else:
        st.info("This prompt was not answered.", icon=":material/pending:")
        _regenerate_button(index, "Answer it")


def show_prompt(console: Console, conversation: Conversation, index: int) -> None:
    """The user's text, or the editor on it."""
    turn = conversation.turns[index]
    with st.chat_message("user"):
        show_pictures(console.images, turn.images)
        if state.edited_turn() != index:
            text_column, edit_column = st.columns([20, 1], vertical_alignment="top")
            text_column.markdown(turn.user_text)
            edit_column.button(
                "",
                icon=":material/edit:",
                key=f"turn.{index}.edit",
                type="tertiary",
                help="Edit and send again; this conversation stays as it is",
                on_click=state.edit_turn,
                args=(index,),
            )
            return
        with st.form(f"turn.{index}.editor", border=False):
            text = st.text_area("Prompt", turn.user_text, key=f"turn.{index}.text", label_visibility="collapsed")
            send, cancel, _ = st.columns([1, 1, 6])
            is_sent = send.form_submit_button("Send", type="primary", width="stretch")
            is_cancelled = cancel.form_submit_button("Cancel", width="stretch")
        if is_cancelled:
            state.edit_turn(None)
            st.rerun()
        if is_sent and (text.strip() or turn.images):
            _resend(console, conversation, index, text)
        elif is_sent:
            st.error("The prompt is empty: write at least one character.")


def _resend(console: Console, conversation: Conversation, index: int, text: str) -> None:
    forked = fork_at(conversation, index, text, now_s=console.clock.wall())
    console.conversations.save(forked)
    state.open_conversation(forked.id)
    state.request_answer(index)
    st.rerun()


def _show_answer(console: Console, conversation: Conversation, index: int, place: int) -> None:
    turn = conversation.turns[index]
    answer = turn.answers[place]
    with st.chat_message("assistant"):
        if turn.kind is TurnKind.COMPARE:
            st.caption(f"**{answer.instance_id}** {_describe(answer)}")
        st.markdown(answer.text)
        if answer.error:
            st.error(answer.error, icon=":material/error:")
        st.caption(measures(answer))
        _show_actions(console, conversation, index, place)


def measures(answer: Answer) -> str:
    """Tokens, latencies and seed of an answer on one line; a dash for what was not measured."""
    parts = [
        f"{answer.num_prompt_tokens} tokens in, {answer.num_output_tokens} out",
        f"queue {format_seconds(answer.queue_s)}",
        f"TTFT {format_seconds(answer.ttft_s)}",
        f"TPOT {format_seconds(answer.tpot_s)}",
        f"{format_rate(answer.tokens_per_s)} tok/s",
        f"seed {DASH if answer.seed is None else answer.seed}",
        answer.finish_reason or "failed",
    ]
    return " · ".join(parts)


def _describe(answer: Answer) -> str:
    shown = {name: value for name, value in answer.parameters.items() if name not in ("top_logprobs", "seed")}
    return ", ".join(f"{name} {value}" for name, value in shown.items())


def _show_actions(console: Console, conversation: Conversation, index: int, place: int) -> None:
    turn = conversation.turns[index]
    answer = turn.answers[place]
    with st.container(horizontal=True, gap="small", vertical_alignment="center"):
        if turn.kind is TurnKind.COMPARE:
            _continue_button(console, conversation, index, place)
        elif len(turn.answers) > 1:
            _variant_buttons(console, conversation, index, turn)
        if answer.tokens:
            with st.popover("Tokens", icon=":material/percent:", type="tertiary"):
                st.caption("Green is certain, red a guess. Hover over a token for its alternatives.")
                st.html(tokens_as_html(answer.tokens))
        with st.popover("Code", icon=":material/code:", type="tertiary"):
            _show_code(console, conversation, index, answer)
        with st.popover("Copy", icon=":material/content_copy:", type="tertiary"):
            st.code(answer.text, language=None, wrap_lines=True)
        if index == len(conversation.turns) - 1 and turn.kind is TurnKind.CHAT:
            _regenerate_button(index, "Regenerate")
        else:
            st.empty()  # keeps the place: without it the row's last element stays on screen while the next answer comes


def _regenerate_button(index: int, label: str) -> None:
    st.button(
        label,
        icon=":material/refresh:",
        key=f"turn.{index}.regenerate",
        type="tertiary",
        on_click=state.request_answer,
        args=(index,),
    )


def _continue_button(console: Console, conversation: Conversation, index: int, place: int) -> None:
    is_selected = conversation.turns[index].selected == place
    st.button(
        "Continues" if is_selected else "Continue with this",
        icon=":material/check:",
        key=f"turn.{index}.{place}.continue",
        type="tertiary",
        disabled=is_selected,
        on_click=_select,
        args=(console, conversation, index, place),
    )


def _variant_buttons(console: Console, conversation: Conversation, index: int, turn: Turn) -> None:
    for label, step in (("Previous answer", -1), ("Next answer", 1)):
        target = turn.selected + step
        st.button(
            "",
            icon=":material/chevron_left:" if step < 0 else ":material/chevron_right:",
            key=f"turn.{index}.variant.{step}",
            type="tertiary",
            help=label,
            disabled=not 0 <= target < len(turn.answers),
            on_click=_select,
            args=(console, conversation, index, target),
        )
        if step < 0:
            st.caption(f"{turn.selected + 1} / {len(turn.answers)}", width="content")


def _select(console: Console, conversation: Conversation, index: int, place: int) -> None:
    console.conversations.save(select_answer(conversation, index, place, now_s=console.clock.wall()))


def _show_code(console: Console, conversation: Conversation, index: int, answer: Answer) -> None:
    parameters = answer.parameters | ({} if answer.seed is None else {"seed": answer.seed})
    said = messages(conversation, upto=index)
    images = [image for one in said for image in one.images]
    body = request_body(answer.instance_id, said, restore_parameters(parameters))
    settings = console.settings
    base_url = f"http://{settings.host}:{settings.port}"
    needs_key = console.keys.is_guarded(Scope.INFERENCE)
    curl, python = st.tabs(["curl", "Python"])
    curl.code(as_curl(base_url, body, images, needs_key=needs_key), language="bash")
    python.code(as_python(base_url, body, images, needs_key=needs_key), language="python")
