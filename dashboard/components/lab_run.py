"""The experiment under way."""

from __future__ import annotations

from dashboard.components.errors import show_error
from dashboard.components.formats import plain
from dashboard.components.job_progress import follow_job
from dashboard.components.lab_table import show_tables
from engine.lab import Lab, LabProgress

POLL_S = 2.0  # drawing takes time from what is measured


def show_progress(lab: Lab, progress: LabProgress | None) -> None:
    """How far it is and what is there already, refreshed until it ends; nothing when none runs. `progress` was read
    first."""
    if lab.error is not None and progress is None:
        show_error(lab.error)
    follow_job(
        lab,
        progress,
        lambda now: (now.ratio, progress_text(now)),
        key="lab",
        when_cancelled="The experiment was cancelled; the variants that had ended are kept.",
        below=_show_measured,
        poll_s=POLL_S,
    )


def _show_measured(progress: LabProgress) -> None:
    if progress.experiment.results:
        show_tables(progress.experiment, key="running")


def progress_text(progress: LabProgress) -> str:
    """`Variant 2 of 3, bfloat16: predicting the text, 40 %`."""
    number = min(progress.index + 1, progress.num_variants)
    what = progress.detail or progress.step.value
    share = "" if progress.fraction is None else f", {progress.fraction:.0%}"
    return f"Variant {number} of {progress.num_variants}, {plain(progress.label)}: {plain(what)}{share}"
