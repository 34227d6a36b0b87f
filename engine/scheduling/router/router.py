"""The decision: who can serve, of these the first tier, of these the nearest precision, of these one.

Tiers are the targets together, then each fallback by itself. Within a tier a conversation that is sticky keeps its
instance; otherwise the weights decide where the route is weighted, and the lowest cost where it is not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from engine.scheduling.router.candidate import Ask, Candidate
from engine.scheduling.router.capability import why_unable
from engine.scheduling.router.decision import Cause, Decision, Verdict
from engine.scheduling.router.load import cost_parts
from engine.scheduling.router.precision import closest
from engine.scheduling.router.route import Route
from engine.scheduling.router.weights import pick_weighted

# Costs closer than this are equal: requests are then spread by their key instead of all going one way.
_SAME_COST = 0.01


@dataclass(frozen=True, slots=True)
class History:
    """What was before this request.

    Attributes:
        stays_with: the instance that answered this conversation last.
        cached_shares: by instance, the share of the prompt that it has seen.
        failed: instances that were tried for this request in vain, and why.
    """

    stays_with: str | None = None
    cached_shares: Mapping[str, float] = field(default_factory=dict)
    failed: Mapping[str, str] = field(default_factory=dict)


def route(
    ask: Ask, candidates: Sequence[Candidate], by: Route, now_s: float, history: History | None = None
) -> Decision:
    """Choose among `candidates` those that `by` names. Never one that cannot serve the request."""
    history = history or History()
    here = {candidate.name: candidate for candidate in candidates}
    verdicts = _judge(ask, here, by, now_s, history)
    able = {verdict.instance for verdict in verdicts if verdict.is_able}
    for number, tier in enumerate(_tiers(by)):
        standing = [here[name] for name in tier if name in able]
        if standing:
            chosen, reason = _choose(ask, standing, by, verdicts, history)
            because = reason if number == 0 else f"fallback {number}, as none before it can answer"
            return Decision(ask.model, chosen, because, _explained(verdicts, standing, ask, chosen))
    return Decision(ask.model, None, f"no instance of {by.name!r} can answer now", verdicts)


def _tiers(by: Route) -> list[list[str]]:
    targets = [target.instance for target in by.targets]
    return [targets, *([name] for name in by.fallbacks)]


def _judge(ask: Ask, here: Mapping[str, Candidate], by: Route, now_s: float, history: History) -> tuple[Verdict, ...]:
    reasons = {name: _why_out(ask, here.get(name), name, by, now_s, history) for tier in _tiers(by) for name in tier}
    able = [here[name] for name, reason in reasons.items() if reason is None]
    best_s = min((one.ttft_p95_s for one in able if one.ttft_p95_s is not None), default=None)
    return tuple(
        Verdict(name, None, "can answer", cost_parts(here[name], best_s, history.cached_shares.get(name, 0.0)))
        if reason is None
        else Verdict(name, *reason)
        for name, reason in reasons.items()
    )


def _why_out(
    ask: Ask, candidate: Candidate | None, name: str, by: Route, now_s: float, history: History
) -> tuple[Cause, str] | None:
    if candidate is None:
        return Cause.MISSING, "it is not here"
    if name in history.failed:
        return Cause.TRIED, f"it was tried: {history.failed[name]}"
    if by.is_weighted and any(target.instance == name and target.weight <= 0 for target in by.targets):
        return Cause.WEIGHT, "its weight is 0"
    return why_unable(ask, candidate, now_s)


def _choose(
    ask: Ask, standing: Sequence[Candidate], by: Route, verdicts: Sequence[Verdict], history: History
) -> tuple[str, str]:
    near = [candidate.name for candidate in closest(standing, ask.precision)]
    if by.is_sticky and history.stays_with in near:
        return str(history.stays_with), "it answered this conversation before"
    if len(near) == 1:
        return near[0], _why_alone(ask, standing, near)
    if by.is_weighted:
        weights = {target.instance: target.weight for target in by.targets if target.instance in near}
        if weights:
            chosen = pick_weighted(ask.key, weights)
            return chosen, f"its turn by weight, {weights[chosen] / sum(weights.values()):.0%} of the requests"
    costs = {verdict.instance: verdict.cost for verdict in verdicts if verdict.instance in near}
    lowest = min(costs.values())
    equal = {name: 1.0 for name, cost in costs.items() if cost <= lowest + _SAME_COST}
    return pick_weighted(ask.key, equal), "the lowest cost" if len(
        equal
    ) == 1 else f"the lowest cost, as {len(equal)} have"


def _why_alone(ask: Ask, standing: Sequence[Candidate], near: Sequence[str]) -> str:
    if ask.precision is not None and len(near) < len(standing):
        return f"nearest to {ask.precision.value}"
    return "the only one that can answer"


def _explained(
    verdicts: Sequence[Verdict], standing: Sequence[Candidate], ask: Ask, chosen: str
) -> tuple[Verdict, ...]:
    """The verdicts with words for those that could, but do not, answer."""
    near = {candidate.name for candidate in closest(standing, ask.precision)}
    in_tier = {candidate.name for candidate in standing}

    def explain(verdict: Verdict) -> str:
        if not verdict.is_able:
            return verdict.reason
        if verdict.instance == chosen:
            return "chosen"
        if verdict.instance not in in_tier:
            return "can answer, but is asked only when those before it cannot"
        if verdict.instance not in near and ask.precision is not None:
            return f"can answer, but is further from {ask.precision.value}"
        return "can answer"

    return tuple(replace(verdict, reason=explain(verdict)) for verdict in verdicts)
