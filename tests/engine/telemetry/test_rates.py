from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.telemetry.rates import CpuTimes, busy_ratios, rate_per_s, rates_per_s

counters = st.integers(min_value=0, max_value=2**63)
seconds = st.floats(min_value=0, max_value=1e9)


def test_busy_ratio_is_the_share_not_idle() -> None:
    before = [CpuTimes(100.0, 80.0), CpuTimes(100.0, 10.0)]
    after = [CpuTimes(110.0, 82.0), CpuTimes(110.0, 20.0)]
    assert busy_ratios(before, after) == (0.8, 0.0)


def test_busy_ratio_needs_time_and_the_same_cores() -> None:
    one = [CpuTimes(100.0, 80.0)]
    assert busy_ratios(one, one) is None
    assert busy_ratios(one, one + one) is None


@given(st.lists(st.tuples(seconds, seconds, seconds, seconds), min_size=1, max_size=8))
def test_busy_ratios_stay_between_0_and_1(cores: list[tuple[float, float, float, float]]) -> None:
    before = [CpuTimes(total, idle) for total, idle, _, _ in cores]
    after = [CpuTimes(total, idle) for _, _, total, idle in cores]
    ratios = busy_ratios(before, after)
    assert ratios is None or all(0.0 <= ratio <= 1.0 for ratio in ratios)


@given(counters, counters, st.floats(min_value=0.01, max_value=3600))
def test_a_rate_times_its_time_is_the_growth(start: int, growth: int, elapsed_s: float) -> None:
    rate = rate_per_s(start, start + growth, elapsed_s)
    assert rate is not None
    assert rate * elapsed_s == pytest.approx(growth)


@pytest.mark.parametrize(
    ("before", "after", "elapsed_s"), [(None, 1, 1.0), (1, None, 1.0), (1, 2, 0.0), (1, 2, -1.0), (2, 1, 1.0)]
)
def test_a_rate_that_cannot_be_told_is_none(before: int | None, after: int | None, elapsed_s: float) -> None:
    assert rate_per_s(before, after, elapsed_s) is None


def test_pairs_of_counters() -> None:
    assert rates_per_s((0, 10), (8, 4), 2.0) == (4.0, None)
    assert rates_per_s(None, (8, 4), 2.0) == (None, None)
