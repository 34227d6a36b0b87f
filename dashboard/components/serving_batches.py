"""Batches of rows: how far each is, with a way to cancel it, and what came of those that have ended."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import streamlit as st

from dashboard.components.errors import errors_shown
from dashboard.components.formats import format_seconds, plain, plural
from dashboard.components.times import format_ago
from engine.batches import Batch, Batches, BatchStatus
from engine.clock import Clock

NUM_SHOWN = 20
MAX_DOWNLOAD_BYTES = 50 * 2**20
_POLL_S = 2.0
_BADGES = {
    BatchStatus.VALIDATING: ":blue-badge[:material/fact_check: validating]",
    BatchStatus.IN_PROGRESS: ":blue-badge[:material/play_circle: in progress]",
    BatchStatus.FINALIZING: ":blue-badge[:material/hourglass_bottom: finalizing]",
    BatchStatus.CANCELLING: ":orange-badge[:material/stop_circle: cancelling]",
    BatchStatus.COMPLETED: ":green-badge[:material/check_circle: completed]",
    BatchStatus.FAILED: ":red-badge[:material/error: failed]",
    BatchStatus.EXPIRED: ":orange-badge[:material/timer_off: expired]",
    BatchStatus.CANCELLED: ":gray-badge[:material/stop_circle: cancelled]",
}


def progress_text(batch: Batch) -> str:
    """How many rows are done, and how many of them with an error."""
    counts = batch.counts
    if not counts.total:
        return "No row was run."
    errors = f", {counts.failed:,} of them with an error" if counts.failed else ""
    return f"{counts.completed + counts.failed:,} of {plural(counts.total, 'row')}{errors}"


def origin_text(batch: Batch, now_s: float) -> str:
    """Which endpoint and model, when, for which key."""
    model = "" if batch.model is None else f" · {batch.model}"
    key = "" if batch.key_id is None else f" · key {batch.key_id[:12]}"
    return f"{batch.endpoint}{model} · begun {format_ago(batch.created_at_s, now_s)}{key}"


def took_text(batch: Batch) -> str | None:
    """How long the rows took; None before the end, or where none was run."""
    began_s, ended_s = batch.reached_at_s.get(BatchStatus.IN_PROGRESS), batch.reached_at_s.get(batch.status)
    return None if batch.is_open or began_s is None or ended_s is None else format_seconds(ended_s - began_s)


def error_lines(batch: Batch, limit: int = 5) -> str:
    """Why a file was refused, as a Markdown list."""
    shown = [f"- {plain(error.message)}" for error in batch.errors[:limit]]
    if len(batch.errors) > limit:
        shown.append(f"- and {len(batch.errors) - limit} more")
    return "\n".join(shown)


@st.fragment(run_every=_POLL_S)
def show_batches(batches: Batches, clock: Clock) -> None:
    """The newest batches of all keys, refreshed as they go on."""
    found = batches.latest(NUM_SHOWN)
    if not found:
        st.info("No batch was sent yet. Programs make them with `POST /v1/batches`.", icon=":material/info:")
    for batch in found:
        with st.container(border=True):
            _show_batch(batches, batch, clock.wall())


def _show_batch(batches: Batches, batch: Batch, now_s: float) -> None:
    with st.container(horizontal=True, vertical_alignment="center"):
        st.markdown(f"**{plain(batch.id[:18])}**", width="content", help=batch.id)
        st.markdown(_BADGES[batch.status], width="content")
    st.caption(plain(origin_text(batch, now_s)))
    if batch.is_open:
        _show_open(batches, batch)
    elif batch.errors:
        st.error(f"Nothing was run:\n\n{error_lines(batch)}", icon=":material/error:")
    else:
        took = took_text(batch)
        st.markdown(progress_text(batch) + ("" if took is None else f", in {took}"))
        _show_downloads(batches, batch)


def _show_open(batches: Batches, batch: Batch) -> None:
    with st.container(horizontal=True, vertical_alignment="center"):
        st.progress(batch.counts.fraction, progress_text(batch) if batch.counts.total else "The file is being checked")
        if batch.status in (BatchStatus.VALIDATING, BatchStatus.IN_PROGRESS) and st.button(
            "Cancel", key=f"batch-cancel-{batch.id}", icon=":material/stop_circle:"
        ):
            with errors_shown():
                batches.cancel(batch.id, batch.key_id)
    if batch.held_up is not None:
        st.warning(plain(f"Rows wait: {batch.held_up}"), icon=":material/hourglass_top:")


def _show_downloads(batches: Batches, batch: Batch) -> None:
    with st.container(horizontal=True):
        if batch.has_output:
            _show_download(batches.files.path(batch.output_file_id), "Answers", f"{batch.id}_output.jsonl")
        if batch.has_errors:
            _show_download(batches.files.path(batch.error_file_id), "Errors", f"{batch.id}_error.jsonl")


def _show_download(file: Path, label: str, name: str) -> None:
    """A file that a client has deleted is not offered; a large one has to go by the API, not through memory here."""
    if not file.exists():
        st.caption(f"{label} were deleted.")
    elif file.stat().st_size > MAX_DOWNLOAD_BYTES:
        st.caption(f"{label} are large: fetch them with `GET /v1/files/{file.name}/content`.")
    else:
        st.download_button(
            label, partial(file.read_bytes), name, key=f"batch-{name}", icon=":material/download:", on_click="ignore"
        )
