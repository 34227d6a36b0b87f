from __future__ import annotations

import time

from engine.clock import SystemClock


def test_readings_are_the_machines() -> None:
    clock = SystemClock()
    first = clock.monotonic()
    assert clock.monotonic() >= first
    assert abs(clock.wall() - time.time()) < 5
