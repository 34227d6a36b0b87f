"""The charts of the latency page. Building a figure asks no store.

Figures are given to Plotly as a whole: adding traces, lines and layout one by one takes six times as long.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime, tzinfo
from typing import TYPE_CHECKING, Any

from dashboard.components.figures import graph_objects
from dashboard.components.formats import format_seconds
from dashboard.components.latency_terms import LABELS
from dashboard.components.times import local_datetime
from engine.latency import DistributionPoint, Metric, MetricSummary, SeriesBucket

if TYPE_CHECKING:
    import plotly.graph_objects as go

# A logarithmic axis has no zero; what is shorter than this is drawn here.
SHORTEST_S = 1e-5
_LAYOUT = {"height": 420, "margin": {"l": 8, "r": 8, "t": 32, "b": 8}}
_NEUTRAL = "#8a8f98"
_SHARES = {"P50": 0.5, "P95": 0.95, "P99": 0.99}
_DOTTED = {"type": "line", "line": {"dash": "dot", "color": _NEUTRAL, "width": 1}}


def choose_unit(longest_s: float) -> tuple[float, str]:
    """Units a second and their name, so that an axis reads 120 ms or 12 s."""
    return (1e3, "ms") if longest_s < 1.0 else (1.0, "s")


def is_near(objective_s: float, longest_s: float) -> bool:
    """Whether an objective may share a linear axis with the lines; one far above would flatten them."""
    return objective_s <= longest_s * 2


def series_figure(
    buckets: Sequence[SeriesBucket], metric: Metric, objective_s: float | None, zone: tzinfo
) -> go.Figure:
    """P50, P95 and P99 over time, a gap where a bucket has no sample, and the number of requests below."""
    go = graph_objects()
    found = [bucket.metrics[metric] for bucket in buckets]
    longest_s = max((one.p99_s or 0.0 for one in found), default=0.0)
    scale, unit = choose_unit(longest_s)
    middles = [local_datetime((bucket.start_s + bucket.end_s) / 2, zone) for bucket in buckets]
    lines = {
        "P50": [one.p50_s for one in found],
        "P95": [one.p95_s for one in found],
        "P99": [one.p99_s for one in found],
    }
    data = [_line(name, middles, values_s, scale, unit) for name, values_s in lines.items()]
    data.append(_bars(middles, [bucket.num_records for bucket in buckets]))
    layout = {
        **_LAYOUT,
        "hovermode": "x unified",
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        "xaxis": {"anchor": "y2"},
        "yaxis": {"domain": [0.3, 1], "title": {"text": f"{LABELS[metric]} ({unit})"}, "rangemode": "tozero"},
        "yaxis2": {"domain": [0, 0.2], "title": {"text": "requests"}, "rangemode": "tozero", "nticks": 3},
    }
    if objective_s is not None and is_near(objective_s, longest_s):
        layout |= _objective_line(objective_s * scale)
    return go.Figure(data, layout)


def _line(name: str, middles: list[datetime], values_s: list[float | None], scale: float, unit: str) -> dict[str, Any]:
    return {
        "type": "scatter",
        "name": name,
        "x": middles,
        "y": [None if value_s is None else value_s * scale for value_s in values_s],
        "mode": "lines+markers",
        "marker": {"size": 4},
        "hovertemplate": f"%{{y:.4~g}} {unit}",
    }


def _bars(middles: list[datetime], counts: list[int]) -> dict[str, Any]:
    return {
        "type": "bar",
        "name": "requests",
        "x": middles,
        "y": counts,
        "yaxis": "y2",
        "marker": {"color": _NEUTRAL},
        "hovertemplate": "%{y:,}",
    }


def _objective_line(objective: float) -> dict[str, Any]:
    label = {"text": "P95 objective", "showarrow": False, "font": {"color": _NEUTRAL}}
    return {
        "shapes": [{**_DOTTED, "xref": "paper", "x0": 0, "x1": 1, "y0": objective, "y1": objective}],
        "annotations": [{**label, "xref": "paper", "x": 1, "xanchor": "right", "y": objective, "yanchor": "bottom"}],
    }


def distribution_figure(
    points: Sequence[DistributionPoint], summary: MetricSummary, metric: Metric, objective_s: float | None
) -> go.Figure:
    """The share of requests at or below each latency, over a logarithmic axis, its percentiles marked."""
    go = graph_objects()
    values_s = [max(point.value_s, SHORTEST_S) for point in points]
    marked = {
        name: max(value_s, SHORTEST_S)
        for name, value_s in (("P50", summary.p50_s), ("P95", summary.p95_s), ("P99", summary.p99_s))
        if value_s is not None
    }
    curve = {
        "type": "scatter",
        "x": values_s,
        "y": [point.fraction for point in points],
        "customdata": [format_seconds(value_s) for value_s in values_s],
        "mode": "lines",
        "line": {"shape": "hv"},
        "hovertemplate": "%{y:.1%} within %{customdata}<extra></extra>",
    }
    marks = {
        "type": "scatter",
        "x": list(marked.values()),
        "y": [_SHARES[name] for name in marked],
        "text": list(marked),
        "customdata": [format_seconds(value_s) for value_s in marked.values()],
        "mode": "markers+text",
        "textposition": "top left",
        "marker": {"size": 8},
        "hovertemplate": "%{text}: %{customdata}<extra></extra>",
    }
    ticks_s = log_ticks(min(values_s, default=1.0), max(values_s, default=1.0))
    layout = {
        **_LAYOUT,
        "showlegend": False,
        "xaxis": {
            "type": "log",
            "title": {"text": LABELS[metric]},
            "tickvals": ticks_s,
            "ticktext": [_tick(value_s) for value_s in ticks_s],
        },
        "yaxis": {"title": {"text": "share of requests"}, "tickformat": ".0%", "range": [0, 1.06]},
    }
    if objective_s is not None and is_near(objective_s, summary.max_s or 0.0):
        layout["shapes"] = [{**_DOTTED, "yref": "paper", "y0": 0, "y1": 1, "x0": objective_s, "x1": objective_s}]
    return go.Figure([curve, marks], layout)


def log_ticks(shortest_s: float, longest_s: float) -> list[float]:
    """Round values around and between the two: 1, 2 and 5 of each power of ten, and only the powers where those
    would crowd the axis."""
    first, last = math.floor(math.log10(shortest_s)), math.ceil(math.log10(longest_s))
    steps = (1, 2, 5) if last - first <= 3 else (1,)
    return [step * 10.0**power for power in range(first, last + 1) for step in steps]


def _tick(value_s: float) -> str:
    return f"{value_s * 1e3:g} ms" if value_s < 1 else f"{value_s:g} s"
