"""Telemetry samples as lines: thinned for a sparkline, or as series with a unit for a chart."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import tzinfo
from itertools import pairwise
from typing import TYPE_CHECKING

from dashboard.components.figures import graph_objects
from dashboard.components.times import local_datetime
from engine.telemetry import GpuReading, Sample

if TYPE_CHECKING:
    import plotly.graph_objects as go

Read = Callable[[Sample], float | None]

_SPARKLINE_POINTS = 60
_CHART_POINTS = 300
HEIGHT = 300


@dataclass(frozen=True, slots=True)
class Chart:
    """Lines over one axis. `lines` maps a name to how its value is read off a sample, in `unit`."""

    title: str
    unit: str
    lines: dict[str, Read]
    top: float | None = None


def thin(values: Sequence[float | None], num_points: int) -> list[float | None]:
    """At most `num_points` means of neighbours, in order. A stretch without any value stays None."""
    if len(values) <= num_points:
        return list(values)
    edges = [len(values) * index // num_points for index in range(num_points + 1)]
    return [_mean(values[start:end]) for start, end in pairwise(edges)]


def _mean(values: Sequence[float | None]) -> float | None:
    present = [value for value in values if value is not None]
    return sum(present) / len(present) if present else None


def sparkline(samples: Sequence[Sample], read: Read) -> list[float] | None:
    """What was measured, for a line without axes; None when it would not be a line."""
    points = [point for point in thin([read(sample) for sample in samples], _SPARKLINE_POINTS) if point is not None]
    return points if len(points) > 1 else None


def gpu_of(sample: Sample, index: int) -> GpuReading | None:
    """The reading of GPU `index` in a sample, None where it was not there."""
    return next((gpu for gpu in sample.gpu.gpus if gpu.index == index), None)


def of_gpu(index: int, name: str, scale: float = 1.0) -> Read:
    """Reads the field `name` of GPU `index`, times `scale`."""

    def read(sample: Sample) -> float | None:
        value = getattr(gpu_of(sample, index), name, None)
        return None if value is None else value * scale

    return read


def scaled(read: Read, scale: float) -> Read:
    """The same reading in another unit."""

    def read_scaled(sample: Sample) -> float | None:
        value = read(sample)
        return None if value is None else value * scale

    return read_scaled


def history_figure(chart: Chart, samples: Sequence[Sample], zone: tzinfo) -> go.Figure:
    """The chart's lines over the samples' times, gaps where nothing was read."""
    go = graph_objects()
    times_s = thin([sample.taken_at_s for sample in samples], _CHART_POINTS)
    moments = [local_datetime(time_s, zone) for time_s in times_s if time_s is not None]
    lines = [
        {
            "type": "scatter",
            "name": name,
            "x": moments,
            "y": thin([read(sample) for sample in samples], _CHART_POINTS),
            "mode": "lines",
            "hovertemplate": f"%{{y:.4~g}} {chart.unit}",
        }
        for name, read in chart.lines.items()
    ]
    layout = {
        "height": HEIGHT,
        "margin": {"l": 8, "r": 8, "t": 32, "b": 8},
        "hovermode": "x unified",
        "showlegend": True,
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        "yaxis": {"title": {"text": f"{chart.title} ({chart.unit})"}, "range": [0, chart.top], "rangemode": "tozero"},
    }
    return go.Figure(lines, layout)
