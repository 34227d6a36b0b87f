"""What the variants answered, side by side."""

from __future__ import annotations

import streamlit as st

from dashboard.components.formats import plain, plural
from engine.lab import Answer, Experiment, VariantResult

_PER_ROW = 3


def show_answers(experiment: Experiment) -> None:
    """A prompt at a time, the original's answer first."""
    answered = [result for result in experiment.results if result.answers]
    if not answered:
        st.caption("No variant came so far as to answer.")
        return
    prompts = experiment.plan.prompts
    index = st.selectbox(
        "Prompt", range(len(prompts)), format_func=lambda number: prompts[number], key=f"answers-{experiment.id}"
    )
    original = experiment.reference
    for start in range(0, len(answered), _PER_ROW):
        row = answered[start : start + _PER_ROW]
        for column, result in zip(st.columns(min(len(answered), _PER_ROW)), row, strict=False):
            with column.container(border=True, height="stretch"):
                _show_answer(result, result.answers[index], _answer_of(original, index))


def _answer_of(result: VariantResult | None, index: int) -> Answer | None:
    return result.answers[index] if result is not None and result.answers else None


def _show_answer(result: VariantResult, answer: Answer, original: Answer | None) -> None:
    st.markdown(f"**{plain(result.label)}**")
    st.text(answer.text or "(nothing)")
    st.caption(answer_note(result, answer, original))


def answer_note(result: VariantResult, answer: Answer, original: Answer | None) -> str:
    """Its length, and how long it goes along with the original's."""
    length = plural(answer.num_tokens, "token") + (", cut there" if answer.is_cut else "")
    if result.is_reference:
        return f"{length} · the original"
    if original is None:
        return length
    if answer.text == original.text:
        return f"{length} · the same as the original's"
    return f"{length} · differs after {plural(common_length(answer.text, original.text), 'character')}"


def common_length(one: str, other: str) -> int:
    """How many characters both begin with."""
    pairs = zip(one, other, strict=False)
    return next((index for index, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))
