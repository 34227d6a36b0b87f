"""How busy a runner is, as a frozen reading."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

_WINDOW_S = 5.0
_STARTS_WINDOW_S = 30.0


@dataclass(frozen=True, slots=True)
class PrefixStats:
    """What is kept of prompts for others that begin the same, since the worker started.

    Attributes:
        num_asked_tokens: tokens of prompts that started; of them `num_found_tokens` needed no computing.
        saved_s: what computing those would have taken at the rate of the others; None before any was computed.
    """

    num_kept_tokens: int
    max_tokens: int
    block_tokens: int
    num_asked_tokens: int
    num_found_tokens: int
    saved_s: float | None

    @property
    def hit_rate(self) -> float | None:
        """Of the tokens of prompts, the share that was found; None before the first prompt."""
        return self.num_found_tokens / self.num_asked_tokens if self.num_asked_tokens else None


@dataclass(frozen=True, slots=True)
class RunnerStats:
    """One reading. `held_back` says why the first waiting request does not start, None when nobody waits;
    `max_waiting_tokens` is None where prompts that wait are not bounded, `start_gap_s` where no request started
    lately, `prefixes` where no beginnings of prompts are kept. `passes` says in words how forward passes are run;
    `num_held_up` counts the requests for which a step waits until the tokens of the last are known, by reason."""

    num_running: int
    num_waiting: int
    max_running: int
    max_waiting: int
    cache_tokens_reserved: int
    cache_tokens_total: int
    tokens_per_s: float
    num_steps: int
    num_output_tokens: int
    held_back: str | None
    num_waiting_tokens: int = 0
    max_waiting_tokens: int | None = None
    start_gap_s: float | None = None
    prefixes: PrefixStats | None = None
    passes: str | None = None
    num_held_up: Mapping[str, int] = field(default_factory=dict)


class TokenRate:
    """Output tokens a second over the last five, and their total."""

    def __init__(self) -> None:
        self.total = 0
        self._times: deque[float] = deque()

    def add(self, now_s: float) -> None:
        """Count one token."""
        self.total += 1
        self._times.append(now_s)
        self._drop_before(now_s - _WINDOW_S)

    def per_second(self, now_s: float) -> float:
        """0 when nothing was produced lately."""
        recent = sum(1 for moment in tuple(self._times) if moment > now_s - _WINDOW_S)
        return recent / _WINDOW_S

    def _drop_before(self, moment_s: float) -> None:
        while self._times and self._times[0] <= moment_s:
            self._times.popleft()


class StartRate:
    """How fast requests leave the queue for the batch, over the last thirty seconds. Moments are on the monotonic
    clock."""

    def __init__(self) -> None:
        self._times: deque[float] = deque(maxlen=256)

    def add(self, now_s: float) -> None:
        """Count one start."""
        self._times.append(now_s)

    def gap_s(self, now_s: float, waiting_since_s: float | None) -> float | None:
        """Seconds between two starts: their mean, or the time that has passed without one where that is longer.
        `waiting_since_s` is when the oldest waiting request came, None when none waits: what passed before it tells
        nothing about how fast the queue moves. None where there is nothing to go by."""
        recent = [moment for moment in tuple(self._times) if moment > now_s - _STARTS_WINDOW_S]
        mean_s = (recent[-1] - recent[0]) / (len(recent) - 1) if len(recent) > 1 else None
        if waiting_since_s is None:
            return mean_s
        stuck_s = now_s - max(waiting_since_s, recent[-1] if recent else waiting_since_s)
        return stuck_s if mean_s is None else max(mean_s, stuck_s)
