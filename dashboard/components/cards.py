"""A measured value as a card: what it is now, a note, and its line over time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import streamlit as st

from dashboard.components.telemetry_history import Read, sparkline
from engine.telemetry import Sample


@dataclass(frozen=True, slots=True)
class Card:
    """`read` takes the value off a sample, for the line; None for a value that needs none."""

    label: str
    value: str
    note: str
    read: Read | None = None
    help: str | None = None


def show_cards(cards: Sequence[Card], samples: Sequence[Sample] = ()) -> None:
    """The cards in a row of equal ones, below each other on a telephone."""
    for column, card in zip(st.columns(len(cards)), cards, strict=True):
        column.metric(
            card.label,
            card.value,
            delta=card.note,
            delta_color="gray",
            delta_arrow="off",
            help=card.help,
            border=True,
            height="stretch",
            chart_data=None if card.read is None else sparkline(samples, card.read),
            chart_type="area",
        )
