"""Which part of a pool belongs to whom: contiguous regions, found by first fit, moved together when no hole is wide
enough. Plain numbers; what lies in the pool is moved by whoever holds it (pool.py).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True, eq=False)
class Region:
    """`size` places from `start` on. It keeps its size, and moves when the pool is compacted."""

    start: int
    size: int

    @property
    def stop(self) -> int:
        return self.start + self.size


@dataclass(frozen=True, slots=True)
class Move:
    """What lay at `source` lies at the region's start now."""

    region: Region
    source: int


class Regions:
    """The regions of a pool of `size` places, in the order of their place."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._taken: list[Region] = []

    @property
    def num_free(self) -> int:
        """Places that belong to nobody, in one piece or not."""
        return self.size - sum(region.size for region in self._taken)

    def take(self, size: int) -> Region | None:
        """The first hole of `size` places; None where none is wide enough."""
        start = 0
        for index, region in enumerate(self._taken):
            if region.start - start >= size:
                return self._insert(index, start, size)
            start = region.stop
        return self._insert(len(self._taken), start, size) if self.size - start >= size else None

    def _insert(self, index: int, start: int, size: int) -> Region:
        region = Region(start, size)
        self._taken.insert(index, region)
        return region

    def give_back(self, region: Region) -> None:
        """Raises ValueError where it was given back before."""
        self._taken.remove(region)

    def compact(self) -> list[Move]:
        """Move all regions to the front. To be carried out in this order: each then lands on what is free or its
        own."""
        moves: list[Move] = []
        start = 0
        for region in self._taken:
            if region.start != start:
                moves.append(Move(region, region.start))
                region.start = start
            start = region.stop
        return moves
