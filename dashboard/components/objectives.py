"""Is the P95 within what the settings ask for."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from engine import Settings
from engine.latency import LatencySummary, Metric


class Verdict(StrEnum):
    """`NO_DATA` is neither: nothing was measured."""

    MET = "met"
    MISSED = "missed"
    NO_DATA = "no data"


VERDICT_COLORS = {Verdict.MET: "green", Verdict.MISSED: "red", Verdict.NO_DATA: "gray"}


@dataclass(frozen=True, slots=True)
class Judgement:
    """One objective beside what was measured. `p95_s` is None exactly when the verdict is `NO_DATA`."""

    metric: Metric
    objective_s: float
    p95_s: float | None
    num_samples: int
    verdict: Verdict


def objectives_of(settings: Settings) -> dict[Metric, float]:
    """The bound of each metric's P95 that has one, in seconds."""
    return {
        Metric.TTFT: settings.objective_ttft_p95_s,
        Metric.TPOT: settings.objective_tpot_p95_s,
        Metric.E2E: settings.objective_e2e_p95_s,
    }


def judge(p95_s: float | None, objective_s: float) -> Verdict:
    """The bound itself is met."""
    if p95_s is None:
        return Verdict.NO_DATA
    return Verdict.MET if p95_s <= objective_s else Verdict.MISSED


def judge_all(summary: LatencySummary, objectives: dict[Metric, float]) -> tuple[Judgement, ...]:
    """Every objective against the summary, in the order of the objectives."""
    judgements = []
    for metric, objective_s in objectives.items():
        found = summary.metrics[metric]
        verdict = judge(found.p95_s, objective_s)
        judgements.append(Judgement(metric, objective_s, found.p95_s, found.num_samples, verdict))
    return tuple(judgements)
