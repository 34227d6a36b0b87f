"""The response cache: what it holds, what it did, and the button that empties it."""

from __future__ import annotations

import streamlit as st

from dashboard.components.formats import (
    format_bytes,
    format_count,
    format_ratio,
    format_seconds,
    format_whole_seconds,
    plural,
)
from dashboard.components.question import Question
from engine.gateway import CacheFigures, ResponseCache

_CLEAR = Question("serving_cache_to_clear")
_OFF = (
    "Off. Set CONSOLE_RESPONSE_CACHE_MIB to the memory that answers to deterministic requests (temperature 0, or a "
    "seed) may take, and start again."
)


def cache_metrics(figures: CacheFigures) -> list[tuple[str, str, str]]:
    """(label, value, help) of what the cache did and holds."""
    num_asked = figures.num_hits + figures.num_shared + figures.num_misses
    return [
        ("Hits", format_count(figures.num_hits), "Answers that were kept and given again, since the console opened."),
        (
            "Shared",
            format_count(figures.num_shared),
            "Requests that came while the same one was running, and were answered by its run.",
        ),
        ("Misses", format_count(figures.num_misses), "Deterministic requests that had a run of their own."),
        ("Hit rate", format_ratio(figures.hit_rate), f"Hits and shared ones, of {num_asked:,} looked up."),
        ("Saved", format_seconds(figures.saved_s), "What the engine had worked on the answers that were given again."),
        ("Answers", format_count(figures.num_entries), "Kept now."),
        (
            "Memory",
            f"{format_bytes(figures.size_bytes)} / {format_bytes(figures.max_bytes)}",
            f"The least recently used goes first, and each after {format_whole_seconds(figures.ttl_s)}.",
        ),
    ]


def show_cache(cache: ResponseCache) -> None:
    """Its figures. The playground is not served from it."""
    if not cache.is_on:
        st.caption(_OFF)
        return
    figures = cache.figures()
    with st.container(border=True):
        with st.container(horizontal=True):
            for label, value, help_text in cache_metrics(figures):
                st.metric(label, value, help=help_text, width="content")
        st.caption(
            "Of the API's chat and completions alone, and for each key apart; the playground always asks the model."
        )
        if st.button("Clear", key="clear-responses", icon=":material/mop:", disabled=not figures.num_entries):
            _CLEAR.ask("all")
            st.rerun()


def show_cache_asked(cache: ResponseCache) -> None:
    """Ask whether to clear it, until that is answered."""
    if _CLEAR.about is not None:
        _confirm_clearing(cache)


@st.dialog("Forget all kept answers?", icon=":material/mop:", on_dismiss=_CLEAR.forget)
def _confirm_clearing(cache: ResponseCache) -> None:
    num_answers = cache.figures().num_entries
    st.markdown(f"{plural(num_answers, 'answer')} will have to be computed again when asked for.")
    if _CLEAR.is_confirmed("Clear", "Keep them", "clear"):
        cache.clear()
        _CLEAR.close()
