from __future__ import annotations

import pytest

from engine.environment.check import CheckStatus
from engine.environment.gpu.power import judge_persistence, judge_power_limit, judge_throttle
from engine.telemetry.nvml import ClockEvent, GpuHealth


@pytest.mark.parametrize(
    ("events", "status", "words"),
    [
        ((), CheckStatus.PASS, ""),
        ((ClockEvent.POWER_CAP,), CheckStatus.PASS, ""),
        ((ClockEvent.APPLICATION_CLOCKS, ClockEvent.SYNC_BOOST, ClockEvent.DISPLAY), CheckStatus.PASS, ""),
        ((ClockEvent.SW_THERMAL,), CheckStatus.WARN, "GPU 3 is too hot"),
        ((ClockEvent.HW_SLOWDOWN, ClockEvent.HW_THERMAL), CheckStatus.WARN, "GPU 3 is too hot"),
        ((ClockEvent.HW_SLOWDOWN, ClockEvent.POWER_BRAKE), CheckStatus.WARN, "power supplies"),
        ((ClockEvent.HW_SLOWDOWN,), CheckStatus.WARN, "Run again"),
        (None, CheckStatus.SKIP, ""),
    ],
)
def test_throttling(events: tuple[ClockEvent, ...] | None, status: CheckStatus, words: str) -> None:
    finding = judge_throttle(GpuHealth(3, clock_events=events))
    assert finding.status is status
    assert words in (finding.remedy or "")


def test_the_events_are_told() -> None:
    assert judge_throttle(GpuHealth(0, clock_events=(ClockEvent.POWER_CAP,))).observed == "software power cap: no alarm"


@pytest.mark.parametrize(
    ("limit", "default", "status"),
    [
        (700.0, 700.0, CheckStatus.PASS),
        (699.0, 700.0, CheckStatus.PASS),
        (500.0, 700.0, CheckStatus.WARN),
        (None, 700.0, CheckStatus.SKIP),
        (700.0, None, CheckStatus.SKIP),
    ],
)
def test_the_power_limit(limit: float | None, default: float | None, status: CheckStatus) -> None:
    finding = judge_power_limit(GpuHealth(1, power_limit_w=limit, power_limit_default_w=default))
    assert finding.status is status
    assert ("nvidia-smi -i 1 -pl 700" in (finding.remedy or "")) is (status is CheckStatus.WARN)


@pytest.mark.parametrize(
    ("is_persistent", "is_data_center", "status"),
    [
        (True, True, CheckStatus.PASS),
        (False, True, CheckStatus.WARN),
        (False, False, CheckStatus.PASS),
        (False, None, CheckStatus.PASS),
        (None, True, CheckStatus.SKIP),
    ],
)
def test_persistence(is_persistent: bool | None, is_data_center: bool | None, status: CheckStatus) -> None:
    finding = judge_persistence(GpuHealth(0, is_persistent=is_persistent, is_data_center=is_data_center))
    assert finding.status is status
    assert ("sudo nvidia-smi -pm 1" in (finding.remedy or "")) is (status is CheckStatus.WARN)
