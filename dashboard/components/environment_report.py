"""The environment report as a whole: verdict, changes since the one before, versions, and the report to take along."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import tzinfo

import streamlit as st

from dashboard.components.check_list import LOOKS, checks_text, counts_text
from dashboard.components.formats import DASH, format_seconds, plain, plural
from dashboard.components.times import format_ago, format_moment
from engine.environment import (
    Change,
    CheckStatus,
    Direction,
    EnvironmentReport,
    to_json,
    to_junit,
    to_markdown,
)

_VERDICTS = {
    CheckStatus.PASS: "This machine is fit",
    CheckStatus.WARN: "Fit, with warnings",
    CheckStatus.FAIL: "Not fit: a check failed",
    CheckStatus.SKIP: "No check applies here",
    CheckStatus.ERROR: "Undecided: a check could not run",
}
_ARROWS = {Direction.BETTER: ":green[better]", Direction.WORSE: ":red[worse]", Direction.NEUTRAL: ""}
_COMPONENTS = {
    "python": "Python",
    "torch": "PyTorch",
    "torch_cuda": "CUDA that PyTorch was built with",
    "nvidia_driver": "NVIDIA driver",
    "driver_cuda": "CUDA that the driver supports",
    "transformers": "transformers",
    "safetensors": "safetensors",
    "streamlit": "Streamlit",
    "fastapi": "FastAPI",
}


def show_verdict(report: EnvironmentReport, now_s: float, zone: tzinfo) -> None:
    """The verdict in a line, the counts, and against what and when it was taken."""
    color, icon = LOOKS[report.verdict]
    st.markdown(f"##### :{color}[{icon} {_VERDICTS[report.verdict]}]")
    st.markdown(counts_text(report))
    depth = "with deep checks" if report.is_deep else "without deep checks"
    st.caption(
        f"{checks_text(report)} against the profile {plain(report.profile)}, {depth}, in "
        f"{format_seconds(report.taken_s)} · taken {format_moment(report.taken_at_s, zone)}, "
        f"{format_ago(report.taken_at_s, now_s)}"
    )


def change_line(change: Change) -> str:
    """One change as a line of Markdown: a table would hide its end on a narrow screen."""
    what = plain(change.what.replace("_", " "))
    parts = (_ARROWS[change.direction], plain(change.note or ""))
    note = " · ".join(part for part in parts if part)
    line = f"**{plain(change.title)}**, {what}: {plain(change.before)} → {plain(change.after)}"
    return f"{line} · {note}" if note else line


def show_changes(changes: Sequence[Change] | None, before: EnvironmentReport | None, zone: tzinfo) -> None:
    """What is different from the report `before`; None where there is nothing to compare with."""
    if before is None or changes is None:
        st.caption("No earlier run to compare with.")
        return
    since = f"the run of {format_moment(before.taken_at_s, zone)}"
    if not changes:
        st.caption(f"Nothing changed since {since}.")
        return
    is_worse = any(change.direction is Direction.WORSE for change in changes)
    label = f"**{plural(len(changes), 'change')}** since {since}"
    with st.expander(label, expanded=is_worse, icon=":material/history:"):
        st.markdown("  \n".join(map(change_line, changes)))


def version_rows(versions: Mapping[str, str | None]) -> list[dict[str, str]]:
    """One row a component, under the name that people use for it."""
    return [
        {"Component": _COMPONENTS.get(name, name), "Version": plain(version or DASH)}
        for name, version in versions.items()
    ]


def show_versions(versions: Mapping[str, str | None]) -> None:
    """What is installed; a dash where nothing is."""
    import pandas as pd

    st.table(pd.DataFrame(version_rows(versions)), hide_index=True, border="horizontal")


def show_take_along(report: EnvironmentReport) -> None:
    """The report for a ticket or for CI, to copy or to save."""
    with st.expander("Copy this report into a ticket", icon=":material/content_copy:"):
        as_markdown, as_json, as_junit = st.tabs(["Markdown", "JSON", "JUnit XML"])
        _show_text(as_markdown, to_markdown(report), "markdown", "environment.md", "text/markdown")
        _show_text(as_json, to_json(report), "json", "environment.json", "application/json")
        _show_text(as_junit, to_junit(report), "xml", "environment.xml", "application/xml")


def _show_text(tab: st.delta_generator.DeltaGenerator, text: str, language: str, name: str, mime: str) -> None:
    with tab:
        st.download_button(
            f"Download {name}", text, name, mime, icon=":material/download:", on_click="ignore", key=f"save-{name}"
        )
        st.code(text, language=language, height=300)
