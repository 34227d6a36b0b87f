"""Quality against speed and against size, and which variants nothing beats."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import streamlit as st

from dashboard.components.figures import graph_objects
from engine.lab import Estimate, Experiment, VariantResult, pareto_front

if TYPE_CHECKING:
    import plotly.graph_objects as go

_NEUTRAL = "#8a8f98"
_LAYOUT = {"height": 380, "margin": {"l": 8, "r": 24, "t": 16, "b": 8}, "showlegend": False, "hovermode": "closest"}


@dataclass(frozen=True, slots=True)
class Axis:
    """What is drawn along an axis. `is_better_high` where more of it is better; `is_log` where it spans decades."""

    title: str
    read: Callable[[VariantResult], Estimate | None]
    is_better_high: bool = False
    is_log: bool = False

    def cost(self, value: float) -> float:
        """The value such that less is better."""
        return -value if self.is_better_high else value


def _of_quality(name: str) -> Callable[[VariantResult], Estimate | None]:
    return lambda result: getattr(result.quality, name, None)


def _of_speed(name: str) -> Callable[[VariantResult], Estimate | None]:
    return lambda result: getattr(result.speed, name, None)


def _size(result: VariantResult) -> Estimate | None:
    return None if result.weights_bytes is None else Estimate(result.weights_bytes / 1e6)


QUALITIES = {
    "KL divergence": Axis("KL from the original (nats a token)", _of_quality("kl"), is_log=True),
    "Perplexity": Axis("perplexity", _of_quality("perplexity")),
}
SPEEDS = {
    "1 stream": Axis("tok/s, 1 stream", _of_speed("one_stream_tokens_per_s"), is_better_high=True),
    "8 streams": Axis("tok/s, 8 streams", _of_speed("eight_streams_tokens_per_s"), is_better_high=True),
}
SIZE = Axis("weights (MB)", _size)


def show_charts(experiment: Experiment) -> None:
    """Both plots, with a choice of what counts as quality and as speed."""
    with st.container(horizontal=True):
        quality = st.segmented_control(
            "Quality", list(QUALITIES), default="KL divergence", required=True, key="quality", bind="query-params"
        )
        speed = st.segmented_control(
            "Speed", list(SPEEDS), default="1 stream", required=True, key="speed", bind="query-params"
        )
    y = QUALITIES[quality or "KL divergence"]
    for column, x, key in zip(st.columns(2), (SPEEDS[speed or "1 stream"], SIZE), ("by-speed", "by-size"), strict=True):
        column.plotly_chart(pareto_figure(experiment, x, y), key=key, alt=f"{y.title} against {x.title}")
    st.caption(
        "The line joins the variants that no other beats in both; lower is better, bars are 95 % intervals. A "
        "logarithmic axis has no zero, so the original is drawn at its foot."
    )


def pareto_figure(experiment: Experiment, x: Axis, y: Axis) -> go.Figure:
    """The variants as named points with their intervals, and the Pareto front as a line."""
    go = graph_objects()
    found = [(result, x.read(result), y.read(result)) for result in experiment.results]
    read = [(result, along, up) for result, along, up in found if along is not None and up is not None]
    front = pareto_front([(x.cost(along.value), y.cost(up.value)) for _, along, up in read])
    floor = foot_of([up.value for _, _, up in read]) if y.is_log else None
    points = [
        Point(result.label, along, up, up.value if floor is None else max(up.value, floor), index in front)
        for index, (result, along, up) in enumerate(read)
    ]
    layout = {
        **_LAYOUT,
        "xaxis": {"title": {"text": x.title}, "rangemode": "tozero"},
        "yaxis": {"title": {"text": y.title}, **_scale(floor)},
    }
    return go.Figure([_front_trace(points), _points_trace(points, x, y)], layout)


@dataclass(frozen=True, slots=True)
class Point:
    """A variant in a plot; `height` is where it is drawn."""

    label: str
    x: Estimate
    y: Estimate
    height: float
    is_on_front: bool


def foot_of(values: Sequence[float]) -> float | None:
    """Where a logarithmic axis draws what is zero: a third of the least value above it; None when there is none."""
    positive = [value for value in values if value > 0]
    return min(positive) / 3 if positive else None


def _scale(floor: float | None) -> dict[str, Any]:
    """A logarithmic axis is ticked at powers of ten."""
    return {"type": "linear"} if floor is None else {"type": "log", "dtick": 1, "tickformat": "~g"}


def label_positions(points: Sequence[Point]) -> list[str]:
    """Beside each point, toward the middle of the plot so that no name is cut, and in turn above and below in the order
    along x so that neighbours keep apart."""
    order = sorted(range(len(points)), key=lambda index: points[index].x.value)
    middle = max((point.x.value for point in points), default=0.0) / 2
    sides = ["right" if point.x.value < middle else "left" for point in points]
    return [f"{'top' if order.index(index) % 2 else 'bottom'} {side}" for index, side in enumerate(sides)]


def _front_trace(points: Sequence[Point]) -> dict[str, Any]:
    line = sorted((point.x.value, point.height) for point in points if point.is_on_front)
    return {
        "type": "scatter",
        "x": [along for along, _ in line],
        "y": [up for _, up in line],
        "mode": "lines",
        "line": {"dash": "dot", "color": _NEUTRAL, "width": 1},
        "hoverinfo": "skip",
    }


def _points_trace(points: Sequence[Point], x: Axis, y: Axis) -> dict[str, Any]:
    return {
        "type": "scatter",
        "x": [point.x.value for point in points],
        "y": [point.height for point in points],
        "error_x": _error_bars([point.x for point in points]),
        "error_y": _error_bars([point.y for point in points]),
        "text": [point.label for point in points],
        "customdata": [point.y.value for point in points],
        "mode": "markers+text",
        "textposition": label_positions(points),
        "cliponaxis": False,
        "marker": {"size": 11, "symbol": ["circle" if point.is_on_front else "circle-open" for point in points]},
        "hovertemplate": f"<b>%{{text}}</b><br>{x.title}: %{{x:.4~g}}<br>"
        f"{y.title}: %{{customdata:.4~g}}<extra></extra>",
    }


def _error_bars(found: Sequence[Estimate]) -> dict[str, Any]:
    """Without an interval a bar has no length."""
    return {
        "type": "data",
        "symmetric": False,
        "array": [0 if one.high is None else one.high - one.value for one in found],
        "arrayminus": [0 if one.low is None else one.value - one.low for one in found],
        "color": _NEUTRAL,
        "thickness": 1,
        "width": 3,
    }
