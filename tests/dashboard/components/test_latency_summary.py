from __future__ import annotations

import pytest

from dashboard.components.latency_summary import objective_text, status_text, summary_rows
from engine.latency import LatencySummary, Metric, MetricSummary, Status


@pytest.mark.parametrize(
    ("p95_s", "objective_s", "word"),
    [(0.5, 1.0, ":green-badge[met]"), (1.5, 1.0, ":red-badge[missed]"), (None, 1.0, ":gray-badge[no data]")],
)
def test_objective_names_its_verdict(p95_s: float | None, objective_s: float, word: str) -> None:
    assert objective_text(p95_s, objective_s) == f"1.00\N{NO-BREAK SPACE}s {word}"


def test_no_objective_is_a_dash() -> None:
    assert objective_text(0.5, None) == "–"


def test_every_metric_has_a_row_even_without_a_sample() -> None:
    metrics = {metric: MetricSummary() for metric in Metric}
    rows = summary_rows(LatencySummary(metrics, dict.fromkeys(Status, 0), 0, 0), {})
    assert [row["Latency"] for row in rows] == ["**Queue**", "**Prefill**", "**TTFT**", "**TPOT**", "**E2E**"]
    assert {(row["P50"], row["P95"], row["P99"], row["Max"], row["Requests"]) for row in rows} == {
        ("–", "–", "–", "–", "0")
    }


def test_zero_errors_are_not_red() -> None:
    text = status_text({Status.SUCCESSFUL: 1_200, Status.CANCELLED: 2, Status.ERRORED: 0, Status.REJECTED: 3})
    assert text == (
        ":green-badge[1,200 successful] :gray-badge[2 cancelled] :gray-badge[0 errored] :orange-badge[3 rejected]"
    )
    assert ":red-badge[1 errored]" in status_text({**dict.fromkeys(Status, 0), Status.ERRORED: 1})
