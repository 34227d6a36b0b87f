"""What lies in the weights cache, and how to remove some of it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import tzinfo
from typing import Any

import streamlit as st

from dashboard.components.errors import errors_shown
from dashboard.components.formats import format_bytes, plain, plural
from dashboard.components.times import local_datetime
from engine.weights.cache import WeightsCache
from engine.weights.inventory import CacheEntry, EntryKind


def entry_rows(entries: Sequence[CacheEntry], zone: tzinfo) -> dict[str, list[Any]]:
    """The entries as columns of a table."""
    return {
        "Name": [entry.name for entry in entries],
        "Kind": [entry.kind.value for entry in entries],
        "Revision": [(entry.revision or "")[:12] for entry in entries],
        "Size": [format_bytes(entry.size_bytes) for entry in entries],
        "Last used": [local_datetime(entry.last_used_s, zone) for entry in entries],
        "In use": [entry.is_in_use for entry in entries],
    }


def show_cache(cache: WeightsCache, zone: tzinfo) -> None:
    """The table, and the removal of one entry that is not in use."""
    entries = cache.entries()
    if not entries:
        st.info("The weights cache is empty: a model from a hub or a GGUF file fills it.", icon=":material/info:")
        return
    total_bytes = sum({inode: size for entry in entries for inode, size in entry.files.items()}.values())
    bound = f" of at most {format_bytes(cache.max_bytes)}" if cache.max_bytes is not None else ""
    num_unfinished = sum(entry.kind is EntryKind.UNFINISHED for entry in entries)
    unfinished = f" and {plural(num_unfinished, 'unfinished download')}" if num_unfinished else ""
    held = f"{plural(len(entries) - num_unfinished, 'model')}{unfinished}, {format_bytes(total_bytes)}{bound}"
    st.caption(f"{held}, in {plain(str(cache.root))}")
    st.dataframe(
        entry_rows(entries, zone),
        hide_index=True,
        column_config={"Last used": st.column_config.DatetimeColumn(format="MMM D, HH:mm")},
        alt="Models in the weights cache",
    )
    idle = [entry for entry in entries if not entry.is_in_use]
    if idle:
        _show_removal(cache, idle)


def _show_removal(cache: WeightsCache, idle: Sequence[CacheEntry]) -> None:
    labels = {entry.id: f"{entry.name} {(entry.revision or '')[:12]}" for entry in idle}
    with st.container(horizontal=True, vertical_alignment="bottom"):
        chosen = st.selectbox(
            "Remove from the cache", list(labels), format_func=labels.__getitem__, index=None, key="remove-entry"
        )
        is_sure = st.button("Remove", icon=":material/delete:", disabled=chosen is None)
    if is_sure and chosen is not None:
        with errors_shown():
            freed_bytes = cache.remove(chosen)
            st.toast(f"{labels[chosen]} is removed; {format_bytes(freed_bytes)} are free again.")
            st.rerun()
