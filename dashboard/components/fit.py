"""Will it fit, and how much is there to download first: asked of the planner, followed while the hub is, and shown."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import streamlit as st

from dashboard.components.errors import errors_shown
from dashboard.components.formats import plain
from dashboard.components.memory_plan import show_plan
from engine import ModelSpec
from engine.errors import ConsoleError
from engine.models.planner import Planner
from engine.staged_job import OnProgress
from engine.weights.preview import DownloadSize


def show_fit(planner: Planner, spec: ModelSpec, key: str) -> None:
    """Plan `spec` and show the plan; before it what pulling it downloads, where it is not here."""
    with errors_shown():
        with _waiting(key) as tell:
            download = planner.download(spec.source, tell)
            if download is not None:
                show_download(download)
            plan = planner.plan(spec, on_progress=tell)
        show_plan(plan, key)


def show_download(download: DownloadSize) -> None:
    """What a pull would download, and the room for it; a warning where it is too little."""
    words = f"Not here yet: {plain(str(download))}."
    if download.has_room:
        st.caption(f":material/download: {words}")
    else:
        st.warning(words, icon=":material/hard_drive:")


@contextmanager
def _waiting(key: str) -> Iterator[OnProgress]:
    """A bar while the hub is asked. Whoever cancels has the page drawn again, which ends this run of it."""
    place, bar = st.empty(), None

    def tell(stage: str, fraction: float | None) -> None:
        nonlocal bar
        if bar is None:
            with place.container(horizontal=True, vertical_alignment="center"):
                bar = st.progress(0.0)
                st.button("Cancel", key=f"{key}-cancel", icon=":material/stop_circle:")
        bar.progress(fraction or 0.0, plain(stage))

    try:
        yield tell
    except ConsoleError:
        place.empty()
        raise
    place.empty()
