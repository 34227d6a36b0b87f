"""The newest requests one by one, the breakdown of one of them, and all of them as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from datetime import tzinfo
from typing import TYPE_CHECKING, Any

import streamlit as st

from dashboard.components.figures import graph_objects
from dashboard.components.formats import format_seconds, plain, plural
from dashboard.components.latency_charts import choose_unit
from dashboard.components.phases import split_phases
from dashboard.components.times import format_moment, local_datetime
from engine.latency import Metric, RequestRecord

if TYPE_CHECKING:
    import plotly.graph_objects as go

REQUEST_PARAM = "request"
_TABLE_HEIGHT = 320
# Middle tones that can be told apart on a light and on a dark ground.
_PHASE_COLORS = {"queue": "#8a8f98", "prefill": "#d97706", "decode": "#2f8fae", "finish": "#5b63c9"}
_MS_COLUMNS = {
    "Queue": Metric.QUEUE,
    "Prefill": Metric.PREFILL,
    "TTFT": Metric.TTFT,
    "TPOT": Metric.TPOT,
    "E2E": Metric.E2E,
}


def request_rows(records: Sequence[RequestRecord], zone: tzinfo) -> dict[str, list[Any]]:
    """The records as columns of a table; latencies in milliseconds, None where there is none."""
    columns: dict[str, list[Any]] = {
        "Received": [local_datetime(record.received_at_s, zone) for record in records],
        "Model": [record.model for record in records],
        "Source": [record.source for record in records],
        "Key": [record.key_id for record in records],
        "Ended": [record.finish_reason for record in records],
        "In": [record.num_prompt_tokens for record in records],
        "Out": [record.num_output_tokens for record in records],
    }
    for name, metric in _MS_COLUMNS.items():
        values_s = (getattr(record, metric.column) for record in records)
        columns[name] = [None if value_s is None else value_s * 1e3 for value_s in values_s]
    columns["Error"] = [record.error for record in records]
    return columns


def to_csv(records: Sequence[RequestRecord]) -> str:
    """A header and a line a record: raw timings in seconds after receipt, derived latencies in seconds. A formula
    in a name or a message stays text in a spreadsheet."""
    raw = [name for name in RequestRecord.__dataclass_fields__ if name != "error"]
    columns = [*raw, *(metric.column for metric in Metric), "error"]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(dict.fromkeys(columns))
    for record in records:
        writer.writerow([_cell(getattr(record, column)) for column in dict.fromkeys(columns)])
    return text.getvalue()


def _cell(value: object) -> object:
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value


def phases_figure(record: RequestRecord) -> go.Figure:
    """One bar from receipt to end, a colour a phase."""
    go = graph_objects()
    scale, unit = choose_unit(record.finished_s)
    bars = [
        {
            "type": "bar",
            "orientation": "h",
            "y": [""],
            "x": [phase.duration_s * scale],
            "name": f"{phase.name} {format_seconds(phase.duration_s)}",
            "marker": {"color": _PHASE_COLORS[phase.name]},
            "hovertemplate": f"{phase.name}: {format_seconds(phase.duration_s)},"
            f" from {format_seconds(phase.start_s)}<extra></extra>",
        }
        for phase in split_phases(record)
    ]
    layout = {
        "height": 150,
        "barmode": "stack",
        "bargap": 0.3,
        "margin": {"l": 8, "r": 8, "t": 8, "b": 8},
        "xaxis": {"title": {"text": f"{unit} after receipt"}},
        "yaxis": {"visible": False},
        "legend": {"orientation": "h", "y": 1.1, "yanchor": "bottom", "x": 0, "traceorder": "normal"},
    }
    return go.Figure(bars, layout)


def show_requests(records: Sequence[RequestRecord], zone: tzinfo, make_csv: Callable[[], str]) -> None:
    """The table; a chosen row is remembered in the URL and broken down below. `make_csv` runs on the click."""
    with st.container(horizontal=True, horizontal_alignment="distribute", vertical_alignment="center"):
        st.caption(f"The newest {plural(len(records), 'request')}; choose one to see where its time went.")
        st.download_button(
            "Download CSV", make_csv, "requests.csv", "text/csv", icon=":material/download:", on_click="ignore"
        )
    # The key names the first row: when newer ones push the rows down, a choice by position must not slide along.
    key = f"requests-{records[0].request_id}"
    st.dataframe(
        request_rows(records, zone),
        height=_TABLE_HEIGHT,
        hide_index=True,
        column_config=_column_config(),
        key=key,
        on_select=lambda: _remember(records, key),
        selection_mode="single-row",
        placeholder="–",
        alt="The newest requests with their latencies",
    )
    chosen = st.query_params.get(REQUEST_PARAM)
    _show_breakdown(next((record for record in records if record.request_id == chosen), records[0]), zone)


def _remember(records: Sequence[RequestRecord], key: str) -> None:
    rows = st.session_state[key].selection.rows
    if rows:
        st.query_params[REQUEST_PARAM] = records[rows[0]].request_id
    else:
        st.query_params.pop(REQUEST_PARAM, None)


def _column_config() -> dict[str, Any]:
    milliseconds = {name: st.column_config.NumberColumn(f"{name} (ms)", format="%.1f") for name in _MS_COLUMNS}
    return {"Received": st.column_config.DatetimeColumn(format="MMM D, HH:mm:ss"), **milliseconds}


def _show_breakdown(record: RequestRecord, zone: tzinfo) -> None:
    st.markdown(
        f"**{plain(record.request_id)}** · {format_moment(record.received_at_s, zone)} · {plain(record.model)}"
        f" · {record.status.value} · {record.num_output_tokens:,} tokens in **{format_seconds(record.e2e_s)}**"
    )
    st.plotly_chart(phases_figure(record), key="phases", alt="Where the time of the chosen request went")
    if record.error:
        st.caption(plain(record.error))
