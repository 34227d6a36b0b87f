from __future__ import annotations

import threading

from hypothesis import given
from hypothesis import strategies as st

from engine.latency.histogram import TOKEN_BOUNDS, Histogram


@given(values=st.lists(st.floats(0, 100), max_size=30))
def test_a_value_is_in_the_first_bucket_that_it_does_not_exceed(values: list[float]) -> None:
    bounds = (1.0, 5.0, 50.0)
    histogram = Histogram(bounds)
    for value in values:
        histogram.observe(value)
    reading = histogram.read()
    for index, bound in enumerate(bounds):
        assert sum(reading.counts[: index + 1]) == sum(value <= bound for value in values)
    assert sum(reading.counts) == len(values)
    assert reading.total == sum(values)


def test_nothing_is_lost_between_threads() -> None:
    histogram = Histogram((1.0,))
    threads = [threading.Thread(target=lambda: [histogram.observe(0.5) for _ in range(2_000)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert histogram.read().counts == (8_000, 0)


def test_token_bounds_go_in_steps_of_one_two_five() -> None:
    assert TOKEN_BOUNDS[:6] == (1, 2, 5, 10, 20, 50)
    assert TOKEN_BOUNDS[-1] == 500_000
