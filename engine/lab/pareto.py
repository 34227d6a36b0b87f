"""Which variants are worth considering at all."""

from __future__ import annotations

from collections.abc import Sequence


def pareto_front(costs: Sequence[tuple[float, float]]) -> tuple[int, ...]:
    """The indices, in their order, of the points that no other dominates: none is at most as costly in both and less so
    in one. Equal points do not dominate each other. Turn the sign of what should be large."""
    return tuple(index for index, point in enumerate(costs) if not any(_dominates(other, point) for other in costs))


def _dominates(one: tuple[float, float], other: tuple[float, float]) -> bool:
    return one[0] <= other[0] and one[1] <= other[1] and one != other
