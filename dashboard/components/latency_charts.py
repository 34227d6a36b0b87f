"""The charts of the latency page. Building a figure asks no store."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import tzinfo
from typing import TYPE_CHECKING

from dashboard.components.latency_terms import LABELS
from dashboard.components.times import local_datetime
from engine.latency import DistributionPoint, Metric, MetricSummary, SeriesBucket

if TYPE_CHECKING:
    import plotly.graph_objects as go

HEIGHT = 420
# A logarithmic axis has no zero; what is shorter than this is drawn here.
SHORTEST_S = 1e-5
_MARGIN = {"l": 8, "r": 8, "t": 32, "b": 8}
_NEUTRAL = "#8a8f98"


def choose_unit(longest_s: float) -> tuple[float, str]:
    """Units a second and their name, so that an axis reads 120 ms or 12 s."""
    return (1e3, "ms") if longest_s < 1.0 else (1.0, "s")


def series_figure(
    buckets: Sequence[SeriesBucket], metric: Metric, objective_s: float | None, zone: tzinfo
) -> go.Figure:
    """P50, P95 and P99 over time, a gap where a bucket has no sample, and the number of requests below."""
    import plotly.graph_objects as go

    found = [bucket.metrics[metric] for bucket in buckets]
    longest_s = max((one.p99_s or 0.0 for one in found), default=0.0)
    scale, unit = choose_unit(longest_s)
    middles = [local_datetime((bucket.start_s + bucket.end_s) / 2, zone) for bucket in buckets]
    figure = go.Figure()
    for name, values_s in (
        ("P50", [one.p50_s for one in found]),
        ("P95", [one.p95_s for one in found]),
        ("P99", [one.p99_s for one in found]),
    ):
        values = [None if value_s is None else value_s * scale for value_s in values_s]
        figure.add_scatter(
            x=middles,
            y=values,
            name=name,
            mode="lines+markers",
            marker_size=4,
            hovertemplate=f"%{{y:.4~g}} {unit}",
        )
    figure.add_bar(
        x=middles,
        y=[bucket.num_records for bucket in buckets],
        yaxis="y2",
        name="requests",
        marker_color=_NEUTRAL,
        hovertemplate="%{y:,}",
    )
    if objective_s is not None and is_near(objective_s, longest_s):
        _draw_objective(figure, objective_s * scale)
    figure.update_layout(
        height=HEIGHT,
        margin=_MARGIN,
        hovermode="x unified",
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        xaxis={"anchor": "y2"},
        yaxis={"domain": [0.3, 1], "title": f"{LABELS[metric]} ({unit})", "rangemode": "tozero"},
        yaxis2={"domain": [0, 0.2], "title": "requests", "rangemode": "tozero", "nticks": 3},
    )
    return figure


def is_near(objective_s: float, longest_s: float) -> bool:
    """Whether an objective may share a linear axis with the lines; one far above would flatten them."""
    return objective_s <= longest_s * 2


def _draw_objective(figure: go.Figure, objective: float) -> None:
    figure.add_hline(
        y=objective,
        line={"dash": "dot", "color": _NEUTRAL, "width": 1},
        annotation={"text": "P95 objective", "font_color": _NEUTRAL, "xanchor": "right"},
    )


def distribution_figure(
    points: Sequence[DistributionPoint], summary: MetricSummary, metric: Metric, objective_s: float | None
) -> go.Figure:
    """The share of requests at or below each latency, over a logarithmic axis, its percentiles marked."""
    import plotly.graph_objects as go

    scale, unit = choose_unit(summary.p99_s or 0.0)
    figure = go.Figure()
    figure.add_scatter(
        x=_floored(scale, (point.value_s for point in points)),
        y=[point.fraction for point in points],
        mode="lines",
        line_shape="hv",
        name=LABELS[metric],
        hovertemplate=f"%{{y:.1%}} within %{{x:.4~g}} {unit}<extra></extra>",
    )
    figure.add_scatter(
        x=_floored(
            scale, (value_s for value_s in (summary.p50_s, summary.p95_s, summary.p99_s) if value_s is not None)
        ),
        y=[0.5, 0.95, 0.99],
        mode="markers+text",
        text=["P50", "P95", "P99"],
        textposition="bottom right",
        marker_size=8,
        hovertemplate=f"%{{text}}: %{{x:.4~g}} {unit}<extra></extra>",
    )
    if objective_s is not None:
        figure.add_vline(x=objective_s * scale, line={"dash": "dot", "color": _NEUTRAL, "width": 1})
    figure.update_layout(
        height=HEIGHT,
        margin=_MARGIN,
        showlegend=False,
        xaxis={"type": "log", "title": f"{LABELS[metric]} ({unit})"},
        yaxis={"title": "share of requests", "tickformat": ".0%", "range": [0, 1.04]},
    )
    return figure


def _floored(scale: float, values_s: Iterable[float]) -> list[float]:
    return [max(value_s, SHORTEST_S) * scale for value_s in values_s]
