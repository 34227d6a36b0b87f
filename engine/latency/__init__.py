"""How long requests took: their records, the store that keeps them, and exact percentiles over them."""

from __future__ import annotations

from engine.latency.filter import EVERYTHING, RecordFilter
from engine.latency.percentiles import percentile
from engine.latency.record import RequestRecord, Status
from engine.latency.store import FILE_NAME, RecordStore
from engine.latency.summary import DistributionPoint, LatencySummary, Metric, MetricSummary, SeriesBucket

__all__ = [
    "EVERYTHING",
    "FILE_NAME",
    "DistributionPoint",
    "LatencySummary",
    "Metric",
    "MetricSummary",
    "RecordFilter",
    "RecordStore",
    "RequestRecord",
    "SeriesBucket",
    "Status",
    "percentile",
]
