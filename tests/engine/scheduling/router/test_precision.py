from __future__ import annotations

import pytest

from engine.scheduling.router import Candidate, Precision
from engine.scheduling.router.precision import closest

ALL = tuple(Candidate(name, bits_per_weight=bits) for name, bits in (("bf16", 16.0), ("int8", 8.3), ("int4", 4.5)))


@pytest.mark.parametrize(
    ("precision", "name"),
    [(Precision.QUALITY, "bf16"), (Precision.BALANCED, "int8"), (Precision.FAST, "int4")],
)
def test_the_nearest_one(precision: Precision, name: str) -> None:
    assert [candidate.name for candidate in closest(ALL, precision)] == [name]


def test_replicas_of_one_precision_are_equal_though_their_scales_differ() -> None:
    near = closest([*ALL, Candidate("other-int4", bits_per_weight=4.25)], Precision.FAST)
    assert {candidate.name for candidate in near} == {"int4", "other-int4"}


def test_unknown_bits_come_last_and_without_a_wish_all_stay() -> None:
    unknown = Candidate("unknown")
    assert closest([unknown, ALL[0]], Precision.FAST) == [ALL[0]]
    assert closest([unknown], Precision.FAST) == [unknown]
    assert closest(ALL, None) == list(ALL)
    assert closest((), Precision.FAST) == []
