from __future__ import annotations

import pytest

from engine.inference.stats import StartRate, TokenRate


def test_rate_is_over_the_last_five_seconds() -> None:
    rate = TokenRate()
    for index in range(100):
        rate.add(index / 10)
    assert rate.total == 100
    assert rate.per_second(9.95) == pytest.approx(10.0, abs=0.2)


def test_rate_falls_to_zero_when_nothing_comes() -> None:
    rate = TokenRate()
    rate.add(1.0)
    assert rate.per_second(2.0) == pytest.approx(0.2)
    assert rate.per_second(6.5) == 0.0


def test_nothing_yet_is_zero() -> None:
    assert TokenRate().per_second(1.0) == 0.0


def _starts(*moments_s: float) -> StartRate:
    rate = StartRate()
    for moment_s in moments_s:
        rate.add(moment_s)
    return rate


def test_the_gap_between_starts_is_their_mean() -> None:
    assert _starts(10.0, 12.0, 14.0).gap_s(14.5, waiting_since_s=None) == 2.0
    assert _starts(10.0, 12.0, 14.0).gap_s(14.5, waiting_since_s=13.0) == 2.0


def test_a_queue_that_does_not_move_makes_the_gap_longer() -> None:
    assert _starts(10.0, 12.0, 14.0).gap_s(20.0, waiting_since_s=13.0) == 6.0
    assert _starts().gap_s(20.0, waiting_since_s=13.0) == 7.0


def test_time_without_anybody_waiting_does_not_count() -> None:
    assert _starts(10.0, 10.5).gap_s(39.0, waiting_since_s=38.9) == pytest.approx(0.5)


def test_old_starts_are_forgotten() -> None:
    assert _starts(10.0, 12.0).gap_s(100.0, waiting_since_s=None) is None
    assert _starts().gap_s(1.0, waiting_since_s=None) is None
