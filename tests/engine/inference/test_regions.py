from __future__ import annotations

from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from engine.inference.regions import Region, Regions

_SIZE = 40


class Pool(RuleBasedStateMachine):
    """Regions of a pool whose content moves with them."""

    def __init__(self) -> None:
        super().__init__()
        self.regions = Regions(_SIZE)
        self.held: dict[int, Region] = {}
        self.content: list[Any] = [None] * _SIZE
        self.count = 0

    @rule(size=st.integers(1, 15))
    def take(self, size: int) -> None:
        region = self.regions.take(size)
        if region is None:
            assert all(hole < size for hole in self._holes())
            return
        self.count += 1
        self.held[self.count] = region
        self.content[region.start : region.stop] = [(self.count, place) for place in range(size)]

    @rule(index=st.integers(0, 30))
    def give_back(self, index: int) -> None:
        if self.held:
            self.regions.give_back(self.held.pop(sorted(self.held)[index % len(self.held)]))

    @rule()
    def compact(self) -> None:
        for move in self.regions.compact():
            content = self.content[move.source : move.source + move.region.size]
            self.content[move.region.start : move.region.stop] = content
        assert self.regions.num_free == 0 or self.regions.take(self.regions.num_free + 1) is None
        if self.regions.num_free:
            whole = self.regions.take(self.regions.num_free)
            assert whole is not None
            self.regions.give_back(whole)

    @invariant()
    def everyone_has_what_was_put(self) -> None:
        for owner, region in self.held.items():
            assert self.content[region.start : region.stop] == [(owner, place) for place in range(region.size)]
        assert self.regions.num_free == _SIZE - sum(region.size for region in self.held.values())

    def _holes(self) -> list[int]:
        borders = sorted((region.start, region.stop) for region in self.held.values())
        ends = [0, *(stop for _, stop in borders)]
        return [start - end for (start, _), end in zip([*borders, (_SIZE, _SIZE)], ends, strict=True)]


TestPool = Pool.TestCase


def test_a_region_is_given_back_once() -> None:
    regions = Regions(4)
    region = regions.take(2)
    assert region is not None
    regions.give_back(region)
    with pytest.raises(ValueError, match="not in list"):
        regions.give_back(region)
