from __future__ import annotations

from datetime import UTC

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dashboard.components.latency_charts import (
    choose_unit,
    distribution_figure,
    is_near,
    log_ticks,
    series_figure,
)
from engine.latency import DistributionPoint, Metric, MetricSummary, SeriesBucket

EMPTY = {metric: MetricSummary() for metric in Metric}


def bucket(start_s: float, p95_s: float | None) -> SeriesBucket:
    found = MetricSummary() if p95_s is None else MetricSummary(3, p95_s / 2, p95_s, p95_s * 1.2, p95_s * 2)
    return SeriesBucket(start_s, start_s + 10, 0 if p95_s is None else 3, {**EMPTY, Metric.TTFT: found})


def test_units_follow_the_longest() -> None:
    assert choose_unit(0.999) == (1e3, "ms")
    assert choose_unit(1.0) == (1.0, "s")


def test_empty_bucket_is_a_gap_and_counts_nothing() -> None:
    figure = series_figure([bucket(0, 0.2), bucket(10, None), bucket(20, 0.4)], Metric.TTFT, None, UTC)
    p50, p95, p99, requests = figure.data
    assert tuple(p95.y) == (200.0, None, 400.0)
    assert tuple(p50.y) == (100.0, None, 200.0)
    assert list(p99.y) == [pytest.approx(240.0), None, pytest.approx(480.0)]
    assert tuple(requests.y) == (3, 0, 3)
    assert p95.x[0].second == 5
    assert figure.layout.yaxis.title.text == "TTFT (ms)"


def test_objective_is_drawn_only_where_it_does_not_flatten_the_lines() -> None:
    near = series_figure([bucket(0, 2.0)], Metric.TTFT, 3.0, UTC)
    assert near.layout.shapes[0].y0 == 3.0
    assert not series_figure([bucket(0, 0.2)], Metric.TTFT, 30.0, UTC).layout.shapes
    assert is_near(2.0, 1.0)
    assert not is_near(2.1, 1.0)


def test_no_bucket_is_an_empty_chart() -> None:
    assert [len(trace.x or ()) for trace in series_figure([], Metric.E2E, 1.0, UTC).data] == [0, 0, 0, 0]


def test_distribution_keeps_zero_on_the_logarithmic_axis() -> None:
    points = [DistributionPoint(0.0, 0.0), DistributionPoint(0.02, 0.5), DistributionPoint(0.4, 1.0)]
    figure = distribution_figure(points, MetricSummary(3, 0.02, 0.3, 0.39, 0.4), Metric.QUEUE, 0.5)
    curve, marks = figure.data
    assert min(curve.x) > 0
    assert tuple(curve.y) == (0.0, 0.5, 1.0)
    assert curve.customdata[1] == "20.0 ms"
    assert dict(zip(marks.text, marks.x, strict=True)) == {"P50": 0.02, "P95": 0.3, "P99": 0.39}
    assert figure.layout.shapes[0].x0 == 0.5
    assert "100 ms" in figure.layout.xaxis.ticktext


def test_empty_distribution_draws_nothing() -> None:
    curve, marks = distribution_figure([], MetricSummary(), Metric.TTFT, None).data
    assert not curve.x
    assert not marks.x


@given(st.floats(1e-5, 1e4), st.floats(1e-5, 1e4))
def test_ticks_span_the_values_and_do_not_crowd(first_s: float, second_s: float) -> None:
    shortest_s, longest_s = sorted((first_s, second_s))
    ticks_s = log_ticks(shortest_s, longest_s)
    assert ticks_s == sorted(ticks_s)
    assert ticks_s[0] <= shortest_s * 1.0001
    assert ticks_s[-1] * 1.0001 >= longest_s
    assert len(ticks_s) <= 12
