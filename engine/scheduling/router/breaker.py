"""A circuit breaker: after enough failures in a row an instance is left alone for a while, then tried with one request.

Closed: everything passes. Open: nothing does, for `open_s` seconds, twice as long each time it opens again. Half-open,
once that is over: one request at a time passes as a trial; its success closes the breaker, its failure opens it again.
While the breaker is not closed only the trial's outcome counts, because the others were sent before.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum


class BreakerState(StrEnum):
    """Where a breaker stands."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


@dataclass(frozen=True, slots=True)
class BreakerRules:
    """When it opens, and for how many seconds."""

    failures_to_open: int = 3
    open_s: float = 5.0
    longest_open_s: float = 120.0


@dataclass(frozen=True, slots=True)
class Breaker:
    """One instance's breaker; every method returns the next one. Times are seconds of one monotonic clock.

    Attributes:
        num_failures: in a row.
        open_until_s: the end of the pause; None while it is closed.
        pause_s: how long the last pause was.
        has_trial: a trial is under way.
    """

    num_failures: int = 0
    open_until_s: float | None = None
    pause_s: float = 0.0
    has_trial: bool = False

    def state(self, now_s: float) -> BreakerState:
        """Where it stands now."""
        if self.open_until_s is None:
            return BreakerState.CLOSED
        return BreakerState.OPEN if now_s < self.open_until_s else BreakerState.HALF_OPEN

    def allows(self, now_s: float) -> bool:
        """Whether a request may be sent now."""
        state = self.state(now_s)
        return state is BreakerState.CLOSED or (state is BreakerState.HALF_OPEN and not self.has_trial)

    def sent(self, now_s: float) -> Breaker:
        """A request was sent; with a breaker that is half-open it is the trial."""
        return replace(self, has_trial=self.state(now_s) is BreakerState.HALF_OPEN)

    def succeeded(self, *, was_trial: bool) -> Breaker:
        """A request was answered."""
        return Breaker() if was_trial or self.open_until_s is None else self

    def failed(self, now_s: float, rules: BreakerRules, *, was_trial: bool) -> Breaker:
        """A request failed for a reason that lies with the instance."""
        if self.open_until_s is not None and not was_trial:
            return self
        counted = replace(self, num_failures=self.num_failures + 1, has_trial=False)
        if not was_trial and counted.num_failures < rules.failures_to_open:
            return counted
        pause_s = min(self.pause_s * 2 or rules.open_s, rules.longest_open_s)
        return replace(counted, open_until_s=now_s + pause_s, pause_s=pause_s)

    def abandoned(self, *, was_trial: bool) -> Breaker:
        """A request ended without saying anything about the instance: its client left, or asked nonsense."""
        return replace(self, has_trial=False) if was_trial else self
