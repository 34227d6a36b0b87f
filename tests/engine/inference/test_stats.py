from __future__ import annotations

import pytest

from engine.inference.stats import TokenRate


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
