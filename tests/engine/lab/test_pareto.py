"""The Pareto front, by its laws."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from engine.lab import pareto_front

POINTS = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=20)


def dominates(one: tuple[float, float], other: tuple[float, float]) -> bool:
    return one != other and one[0] <= other[0] and one[1] <= other[1]


@given(POINTS)
def test_members_are_not_dominated_and_the_others_are_by_a_member(points: list[tuple[float, float]]) -> None:
    front = pareto_front(points)
    members = [points[index] for index in front]
    for index, point in enumerate(points):
        is_dominated = any(dominates(other, point) for other in members)
        assert is_dominated != (index in front)


@given(POINTS)
def test_the_front_is_empty_only_for_no_points(points: list[tuple[float, float]]) -> None:
    assert bool(pareto_front(points)) == bool(points)


def test_equal_points_stay_together() -> None:
    assert pareto_front([(1, 2), (1, 2), (2, 1), (2, 2)]) == (0, 1, 2)
