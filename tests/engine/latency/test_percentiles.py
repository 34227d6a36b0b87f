from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.latency.percentiles import percentile

_VALUES = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=200)


@given(values=_VALUES, q=st.floats(0.0, 1.0))
def test_equals_numpy(values: list[float], q: float) -> None:
    assert percentile(values, q) == pytest.approx(float(np.quantile(values, q)), rel=1e-9, abs=1e-6)


@given(values=_VALUES)
def test_ends_are_minimum_and_maximum(values: list[float]) -> None:
    assert percentile(values, 0.0) == min(values)
    assert percentile(values, 1.0) == max(values)


def test_interpolates_between_ranks() -> None:
    assert percentile([4.0, 1.0, 3.0, 2.0], 0.5) == 2.5


def test_leaves_its_input_alone() -> None:
    values = [3.0, 1.0, 2.0]
    percentile(values, 0.5)
    assert values == [3.0, 1.0, 2.0]


def test_empty_sample_has_none() -> None:
    assert percentile([], 0.99) is None


@pytest.mark.parametrize("q", [-0.1, 1.1, 95.0, float("nan")])
def test_refuses_q_outside_its_range(q: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        percentile([1.0], q)
