"""The one door to time, so that tests decide when a deadline passes."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """`monotonic` never goes back and measures durations; `wall` is seconds since the epoch."""

    def monotonic(self) -> float: ...

    def wall(self) -> float: ...


class SystemClock:
    """The machine's own clocks."""

    def monotonic(self) -> float:
        return time.perf_counter()

    def wall(self) -> float:
        return time.time()
