"""Runs of the past as a table; the chosen one is named in the URL, so that a link opens it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import streamlit as st

RUN_PARAM = "run"

Run = TypeVar("Run")


def named_run(get: Callable[[str], Run | None], when_gone: str) -> Run | None:
    """The run that the URL names; None when it names none, or, which is said, one that is gone."""
    named = st.query_params.get(RUN_PARAM)
    found = None if named is None else get(named)
    if named is not None and found is None:
        st.warning(when_gone)
        forget_run()
    return found


def is_run_named() -> bool:
    """Whether the URL names one."""
    return RUN_PARAM in st.query_params


def open_run(run_id: str) -> None:
    """Name it in the URL."""
    st.query_params[RUN_PARAM] = run_id


def forget_run() -> None:
    """Name none, which is the latest."""
    st.query_params.pop(RUN_PARAM, None)


def show_runs(ids: Sequence[str], columns: Mapping[str, Sequence[Any]], moment: str, alt: str) -> None:
    """The table, the newest first; choosing a row opens that run. `moment` is the column that says when it was."""
    # The key names the newest run: a choice by position must not slide along when one is added.
    key = f"runs-{ids[0]}"
    st.dataframe(
        columns,
        hide_index=True,
        height=min(36 * (len(ids) + 1), 320),
        column_config={moment: st.column_config.DatetimeColumn(format="MMM D, HH:mm:ss")},
        key=key,
        on_select=lambda: _choose(ids, key),
        selection_mode="single-row",
        alt=alt,
    )


def _choose(ids: Sequence[str], key: str) -> None:
    rows = st.session_state[key].selection.rows
    if rows:
        open_run(ids[rows[0]])
    else:
        forget_run()
