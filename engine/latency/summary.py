"""The answers to questions about stored records. Every latency is in seconds, None for an empty sample."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from engine.latency.record import Status


class Metric(StrEnum):
    """A latency of a request, as record.py defines it."""

    QUEUE = "queue"
    PREFILL = "prefill"
    TTFT = "ttft"
    TPOT = "tpot"
    E2E = "e2e"

    @property
    def column(self) -> str:
        """The metric's name with its unit, as RequestRecord and the store have it."""
        return f"{self.value}_s"


@dataclass(frozen=True, slots=True)
class MetricSummary:
    """One metric over the records that have it. `num_samples` can be below the number of records: a request
    that was cancelled in the queue has no TTFT."""

    num_samples: int = 0
    p50_s: float | None = None
    p95_s: float | None = None
    p99_s: float | None = None
    max_s: float | None = None


@dataclass(frozen=True, slots=True)
class LatencySummary:
    """The records that fit, as numbers. `metrics` and `num_by_status` have every member as a key."""

    metrics: Mapping[Metric, MetricSummary]
    num_by_status: Mapping[Status, int]
    num_prompt_tokens: int
    num_output_tokens: int

    @property
    def num_records(self) -> int:
        return sum(self.num_by_status.values())


@dataclass(frozen=True, slots=True)
class SeriesBucket:
    """The records received from `start_s` (included) to `end_s` (excluded), both seconds since the epoch. A
    bucket without records is kept, with empty samples, so that a chart shows the gap."""

    start_s: float
    end_s: float
    num_records: int
    metrics: Mapping[Metric, MetricSummary]


@dataclass(frozen=True, slots=True)
class DistributionPoint:
    """`fraction` (0 to 1) of the sample lies at or below `value_s`."""

    value_s: float
    fraction: float
