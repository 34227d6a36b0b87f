"""Which instance answers a request, and why: pure functions of plain data and a time that is handed in."""

from __future__ import annotations

from engine.scheduling.router.breaker import Breaker, BreakerRules, BreakerState
from engine.scheduling.router.candidate import Ask, Candidate, Feature, Precision
from engine.scheduling.router.decision import Cause, CostPart, Decision, Verdict
from engine.scheduling.router.route import AUTO, Route, Target, split_precision
from engine.scheduling.router.router import History, route

__all__ = [
    "AUTO",
    "Ask",
    "Breaker",
    "BreakerRules",
    "BreakerState",
    "Candidate",
    "Cause",
    "CostPart",
    "Decision",
    "Feature",
    "History",
    "Precision",
    "Route",
    "Target",
    "Verdict",
    "route",
    "split_precision",
]
