"""Whether an instance can serve a request now, and if not, why, in words for a person."""

from __future__ import annotations

from collections.abc import Iterator

from engine.scheduling.router.breaker import BreakerState
from engine.scheduling.router.candidate import Ask, Candidate
from engine.scheduling.router.decision import Cause


def why_unable(ask: Ask, candidate: Candidate, now_s: float) -> tuple[Cause, str] | None:
    """The first reason against it; None when there is none."""
    return next(_reasons(ask, candidate, now_s), None)


def _reasons(ask: Ask, candidate: Candidate, now_s: float) -> Iterator[tuple[Cause, str]]:
    missing = sorted(feature.value for feature in ask.features - candidate.features)
    if missing:
        yield Cause.FEATURE, f"it has no {' and no '.join(missing)}"
    if (short := _why_too_long(ask, candidate)) is not None:
        yield Cause.CONTEXT, short
    if candidate.why_not_ready is not None:
        yield Cause.NOT_READY, candidate.why_not_ready
    if not candidate.breaker.allows(now_s):
        yield Cause.BREAKER, _why_not_allowed(candidate, now_s)
    if _is_full(candidate):
        yield Cause.FULL, f"its queue is full ({candidate.num_waiting:,} waiting)"


def _why_too_long(ask: Ask, candidate: Candidate) -> str | None:
    """An answer takes one token at least."""
    num_answer_tokens = 1 if ask.max_tokens is None else ask.max_tokens
    needed = ask.num_prompt_tokens + num_answer_tokens
    if candidate.context_length is None or needed <= candidate.context_length:
        return None
    return f"{needed:,} tokens are needed, its context holds {candidate.context_length:,}"


def _why_not_allowed(candidate: Candidate, now_s: float) -> str:
    breaker = candidate.breaker
    if breaker.state(now_s) is BreakerState.OPEN and breaker.open_until_s is not None:
        times = f"{breaker.num_failures} failure{'' if breaker.num_failures == 1 else 's'} in a row"
        return f"its breaker is open for {breaker.open_until_s - now_s:.0f} s more, after {times}"
    return "its breaker is half-open, and one trial is under way already"


def _is_full(candidate: Candidate) -> bool:
    """Whether it would refuse: no place in the batch and none in the queue."""
    if candidate.max_running is None or candidate.num_running < candidate.max_running:
        return False
    return candidate.max_waiting is not None and candidate.num_waiting >= candidate.max_waiting
