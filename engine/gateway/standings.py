"""How each instance has done lately: its breaker, and the latencies of its last requests through the gateway."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass, field, replace

from engine.clock import Clock
from engine.errors import InstanceNotReadyError, WorkerDiedError
from engine.inference.request import Finished, FinishReason
from engine.latency.percentiles import percentile
from engine.remote.trouble import RemoteError
from engine.scheduling.router import Breaker, BreakerRules

WINDOW_S = 300.0
_WINDOW_REQUESTS = 200
_COMPLETE = frozenset({FinishReason.STOP, FinishReason.LENGTH})


@dataclass(frozen=True, slots=True)
class Recent:
    """The last requests of an instance, two hundred and five minutes at most. None where none was answered."""

    num_answered: int = 0
    num_failed: int = 0
    ttft_p95_s: float | None = None
    e2e_p95_s: float | None = None


@dataclass(frozen=True, slots=True)
class _Outcome:
    at_s: float
    ttft_s: float | None
    e2e_s: float | None


@dataclass
class _Standing:
    breaker: Breaker = field(default_factory=Breaker)
    outcomes: deque[_Outcome] = field(default_factory=lambda: deque(maxlen=_WINDOW_REQUESTS))
    recent: Recent = field(default_factory=Recent)


class Standings:
    """Owns the breakers and the recent outcomes. Any thread may call."""

    def __init__(self, clock: Clock, rules: BreakerRules) -> None:
        self._clock = clock
        self._rules = rules
        self._lock = threading.Lock()
        self._standings: dict[str, _Standing] = {}

    def breaker(self, name: str) -> Breaker:
        """As it stands."""
        with self._lock:
            found = self._standings.get(name)
            return Breaker() if found is None else found.breaker

    def recent(self, name: str) -> Recent:
        """Over the requests that ended within the last five minutes."""
        oldest_s = self._clock.monotonic() - WINDOW_S
        with self._lock:
            found = self._standings.get(name)
            if found is None:
                return Recent()
            if found.outcomes and found.outcomes[0].at_s < oldest_s:
                while found.outcomes and found.outcomes[0].at_s < oldest_s:
                    found.outcomes.popleft()
                found.recent = _summarize(found.outcomes)
            return found.recent

    def begin(self, name: str, *, is_chosen: bool = True) -> bool:
        """A request is about to be sent; whether it is a breaker's trial. Each is followed by one `end`. One that is
        sent though the router did not choose that instance passes a breaker that is open.

        Raises:
            InstanceNotReadyError: the breaker does not let it pass: another request was faster.
        """
        now_s = self._clock.monotonic()
        with self._lock:
            standing = self._standings.setdefault(name, _Standing())
            if not standing.breaker.allows(now_s):
                if is_chosen:
                    raise InstanceNotReadyError(f"{name} is being tried by another request: try again in a moment")
                return False
            standing.breaker = standing.breaker.sent(now_s)
            return standing.breaker.has_trial

    def end(self, name: str, finished: Finished | None, *, was_trial: bool) -> None:
        """What came of it: None where nobody waited for the end, or it never began."""
        now_s = self._clock.monotonic()
        with self._lock:
            standing = self._standings.setdefault(name, _Standing())
            if finished is not None and finished.reason in _COMPLETE:
                standing.breaker = standing.breaker.succeeded(was_trial=was_trial)
                standing.outcomes.append(_outcome(finished, now_s))
            elif finished is not None and is_its_fault(finished):
                standing.breaker = standing.breaker.failed(now_s, self._rules, was_trial=was_trial)
                standing.outcomes.append(_Outcome(now_s, None, None))
            else:
                standing.breaker = standing.breaker.abandoned(was_trial=was_trial)
                return
            standing.recent = _summarize(standing.outcomes)

    def forget(self, name: str) -> None:
        """Begin anew with whatever is called that next."""
        with self._lock:
            self._standings.pop(name, None)


def is_its_fault(finished: Finished) -> bool:
    """Whether a request failed for a reason that lies with the instance, not with the request or its client."""
    return finished.reason is FinishReason.ERROR and isinstance(finished.failure(), RemoteError | WorkerDiedError)


def _outcome(finished: Finished, now_s: float) -> _Outcome:
    timing = finished.timing
    first_s, end_s = timing.first_token_s, timing.finished_s
    return _Outcome(
        now_s,
        None if first_s is None else first_s - timing.received_s,
        None if end_s is None else end_s - timing.received_s,
    )


def _summarize(outcomes: deque[_Outcome]) -> Recent:
    answered = [outcome for outcome in outcomes if outcome.e2e_s is not None]
    summary = Recent(len(answered), len(outcomes) - len(answered))
    return replace(
        summary,
        ttft_p95_s=percentile([outcome.ttft_s for outcome in answered if outcome.ttft_s is not None], 0.95),
        e2e_p95_s=percentile([outcome.e2e_s for outcome in answered if outcome.e2e_s is not None], 0.95),
    )
