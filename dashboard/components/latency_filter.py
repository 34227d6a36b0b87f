"""The filters of the latency page. They live in the URL, so a link shows what its sender saw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import streamlit as st

from engine.latency import RecordFilter, Status

# label -> seconds back from now, None for all of them
RANGES: dict[str, float | None] = {
    "15 min": 900.0,
    "1 h": 3_600.0,
    "24 h": 86_400.0,
    "7 d": 604_800.0,
    "All": None,
}
_SOURCES = ("playground", "api", "batch", "cache")


@dataclass(frozen=True, slots=True)
class Choice:
    """What was chosen. Nothing chosen in a list means no bound."""

    range_s: float | None
    models: tuple[str, ...]
    statuses: tuple[Status, ...]
    source: str | None
    key_id: str | None
    is_live: bool

    def at(self, now_s: float) -> RecordFilter:
        """The choice as a filter over records, its range ending now (seconds since the epoch)."""
        return RecordFilter(
            models=self.models or None,
            statuses=self.statuses or None,
            since_s=None if self.range_s is None else now_s - self.range_s,
            until_s=None if self.range_s is None else now_s,
            source=self.source,
            key_id=self.key_id,
        )


def choose_filter(models: Sequence[str], keys: Sequence[str]) -> Choice:
    """The rows of controls; API keys can be chosen once one has records."""
    with st.container(horizontal=True, vertical_alignment="bottom"):
        range_label = st.segmented_control(
            "Time range", list(RANGES), default="1 h", required=True, key="range", bind="query-params"
        )
        statuses = st.pills(
            "Status",
            [status.value for status in Status],
            selection_mode="multi",
            default=[Status.SUCCESSFUL.value],
            key="status",
            bind="query-params",
            help="None chosen means all of them.",
        )
        is_live = st.toggle("Refresh every 5 s", key="live", bind="query-params")
    with st.container(horizontal=True):
        chosen = st.multiselect("Models", models, key="model", bind="query-params", placeholder="All models")
        source = st.selectbox(
            "Source",
            _SOURCES,
            index=None,
            key="source",
            bind="query-params",
            placeholder="Any source",
            accept_new_options=True,
            help="Who asked, as the request named itself.",
        )
        key_id = _choose_key(keys) if keys else None
    return Choice(
        RANGES[range_label or "1 h"],
        tuple(chosen),
        tuple(Status(status) for status in statuses),
        source,
        key_id,
        is_live,
    )


def _choose_key(keys: Sequence[str]) -> str | None:
    return st.selectbox("API key", keys, index=None, key="key_id", bind="query-params", placeholder="Any key")
