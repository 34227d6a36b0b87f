"""P95 against its objective, one card a metric."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from dashboard.components.formats import format_seconds, plural
from dashboard.components.latency_terms import DEFINITIONS, LABELS
from dashboard.components.objectives import VERDICT_COLORS, Judgement, Verdict

_WORDS = {Verdict.MET: "Met", Verdict.MISSED: "Missed", Verdict.NO_DATA: "No data"}


def show_objectives(judgements: Sequence[Judgement]) -> None:
    """A row of cards, below each other on a telephone."""
    for column, judgement in zip(st.columns(len(judgements)), judgements, strict=True):
        with column:
            _show_card(judgement)


def _show_card(judgement: Judgement) -> None:
    st.metric(
        f"{LABELS[judgement.metric]} P95",
        format_seconds(judgement.p95_s),
        delta=_WORDS[judgement.verdict],
        delta_color=VERDICT_COLORS[judgement.verdict],  # type: ignore[arg-type]
        delta_arrow="off",
        delta_description=f"objective {format_seconds(judgement.objective_s)}",
        help=f"{DEFINITIONS[judgement.metric]} Over {plural(judgement.num_samples, 'request')}.",
        border=True,
        height="stretch",
    )
