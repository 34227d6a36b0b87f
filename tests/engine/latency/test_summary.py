from __future__ import annotations

from engine.latency.record import RequestRecord, Status
from engine.latency.summary import LatencySummary, Metric, MetricSummary


def test_every_metric_is_a_property_of_the_record() -> None:
    assert all(isinstance(getattr(RequestRecord, metric.column), property) for metric in Metric)


def test_an_empty_sample_has_no_percentile() -> None:
    assert MetricSummary() == MetricSummary(num_samples=0, p50_s=None, p95_s=None, p99_s=None, max_s=None)


def test_records_are_counted_over_all_statuses() -> None:
    counts = {Status.SUCCESSFUL: 5, Status.CANCELLED: 2, Status.ERRORED: 1}
    assert LatencySummary({}, counts, 0, 0).num_records == 8
