"""Starting a run of the checks, and following it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import streamlit as st

from dashboard.components.check_list import show_check
from dashboard.components.errors import errors_shown, show_error
from dashboard.components.formats import plain, plural
from dashboard.components.job_progress import follow_job
from dashboard.components.past_runs import forget_run
from engine.environment.export import needs_attention
from engine.environment.profile import load_profile
from engine.environment.runs import EnvironmentRuns, RunProgress

_SHOWN_RUNNING = 4


def show_start(runs: EnvironmentRuns, profiles: Mapping[str, Path], *, is_running: bool) -> None:
    """The profile, the depth, and the button; the choices live in the URL."""
    default = runs.default_profile()
    names = [*profiles] if default in profiles else [default, *profiles]  # the setting may name a file elsewhere
    with st.container(horizontal=True, vertical_alignment="bottom"):
        profile = st.selectbox(
            "Profile",
            names,
            index=names.index(default),
            key="profile",
            bind="query-params",
            help="What is asked of this machine. Your own: a .toml file in the folder profiles of the console's home.",
        )
        is_deep = st.toggle(
            "Deep checks",
            key="deep",
            bind="query-params",
            help="Also what takes long or loads the machine: GPU bandwidth and arithmetic, an all-reduce, pip.",
        )
        if st.button("Run the checks", type="primary", icon=":material/play_arrow:", disabled=is_running):
            _start(runs, profile, is_deep)
    with errors_shown():
        chosen = load_profile(profiles.get(profile) or Path(profile))
        st.caption(f"{plain(chosen.title)}. {plain(chosen.description)}")


def _start(runs: EnvironmentRuns, profile: str, is_deep: bool) -> None:
    """Begin, and leave an older run that was being looked at."""
    with errors_shown():
        runs.start(profile, is_deep=is_deep)
        forget_run()
        st.rerun()


def show_progress(runs: EnvironmentRuns, progress: RunProgress | None) -> None:
    """The run under way, refreshed until it ends; nothing when there is none. `progress` was read first."""
    if runs.error is not None and progress is None:
        show_error(runs.error)
    follow_job(
        runs,
        progress,
        lambda now: (now.ratio, progress_text(now)),
        key="environment",
        when_cancelled="The run was cancelled; the last report is the one before it.",
        below=_show_found,
    )


def _show_found(progress: RunProgress) -> None:
    for check in progress.results:
        if needs_attention(check):
            show_check(check)


def progress_text(progress: RunProgress) -> str:
    """`12 of 40 checks, running: Memory, Disk and 3 more`."""
    total = len(progress.results) + len(progress.running)
    text = f"{len(progress.results)} of {plural(total, 'check')}"
    if not progress.running:
        return text
    more = len(progress.running) - _SHOWN_RUNNING
    named = ", ".join(plain(title) for title in progress.running[:_SHOWN_RUNNING])
    return f"{text}, running: {named}{f' and {more} more' if more > 0 else ''}"
