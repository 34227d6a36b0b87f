from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dashboard.components.objectives import Verdict, judge, judge_all, objectives_of
from engine import Settings
from engine.latency import LatencySummary, Metric, MetricSummary, Status


@pytest.mark.parametrize(
    ("p95_s", "verdict"),
    [(None, Verdict.NO_DATA), (0.0, Verdict.MET), (1.0, Verdict.MET), (1.0001, Verdict.MISSED)],
)
def test_bound_itself_is_met(p95_s: float | None, verdict: Verdict) -> None:
    assert judge(p95_s, 1.0) is verdict


@given(st.floats(0, 1e6), st.floats(1e-6, 1e6), st.floats(0, 1e6))
def test_a_slower_p95_is_never_judged_better(p95_s: float, objective_s: float, more_s: float) -> None:
    if judge(p95_s, objective_s) is Verdict.MISSED:
        assert judge(p95_s + more_s, objective_s) is Verdict.MISSED


def test_each_objective_is_judged_by_its_own_metric(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, objective_ttft_p95_s=0.5, objective_tpot_p95_s=0.1, objective_e2e_p95_s=9)
    metrics = {metric: MetricSummary() for metric in Metric}
    metrics[Metric.TTFT] = MetricSummary(7, 0.1, 0.4, 0.9, 1.0)
    metrics[Metric.TPOT] = MetricSummary(6, 0.1, 0.2, 0.3, 0.4)
    summary = LatencySummary(metrics, dict.fromkeys(Status, 0), 0, 0)
    judged = {one.metric: one for one in judge_all(summary, objectives_of(settings))}
    assert (judged[Metric.TTFT].verdict, judged[Metric.TTFT].num_samples) == (Verdict.MET, 7)
    assert (judged[Metric.TPOT].verdict, judged[Metric.TPOT].objective_s) == (Verdict.MISSED, 0.1)
    assert (judged[Metric.E2E].verdict, judged[Metric.E2E].p95_s) == (Verdict.NO_DATA, None)
