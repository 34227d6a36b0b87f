"""How busy a runner is, as a frozen reading."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

_WINDOW_S = 5.0


@dataclass(frozen=True, slots=True)
class RunnerStats:
    """One reading. `held_back` says why the first waiting request does not start, None when nobody waits."""

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
