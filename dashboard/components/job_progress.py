"""Following work in the background until it ends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

import streamlit as st

POLL_S = 0.5

Progress = TypeVar("Progress")
Read = TypeVar("Read", covariant=True)


class Followed(Protocol[Read]):
    """What the engine runs one at a time in the background."""

    def progress(self) -> Read | None:
        """How far it is; None when nothing is under way."""

    def cancel(self) -> None:
        """Have it end."""


def follow_job(
    job: Followed[Progress],
    seen: Progress | None,
    bar: Callable[[Progress], tuple[float, str]],
    key: str,
    when_cancelled: str | None,
    below: Callable[[Progress], None] | None = None,
    poll_s: float = POLL_S,
) -> None:
    """How far it is, with a way to cancel it, refreshed until it ends; then the page is drawn again. Nothing when
    nothing is under way.

    `seen` is the progress that the page read before anything that the work changes: when the work has ended since, what
    was drawn is of both before and after its end, and is drawn again at once. `bar` gives the share that is done, 0 to
    1, and what is said of it; `below` draws what is there already. `when_cancelled` is None where the page itself says
    so at the end.
    """
    if seen is not None:
        st.fragment(_follow, run_every=poll_s)(job, bar, key, when_cancelled, below)


def _follow(
    job: Followed[Progress],
    bar: Callable[[Progress], tuple[float, str]],
    key: str,
    when_cancelled: str | None,
    below: Callable[[Progress], None] | None,
) -> None:
    progress = job.progress()
    if progress is None:
        st.rerun()
        return
    with st.container(horizontal=True, vertical_alignment="center"):
        st.progress(*bar(progress))
        if st.button("Cancel", key=f"{key}-cancel", icon=":material/stop_circle:"):
            job.cancel()
            if when_cancelled is not None:
                st.toast(when_cancelled, icon=":material/stop_circle:")
    if below is not None:
        below(progress)
