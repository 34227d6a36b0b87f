"""What goes when the cache is over its bound: a pure decision.

The least recently used go first, and none that is in use. Models share files, so what a removal frees is counted over
the files that nothing else holds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model in the cache: bytes by file, a file having the same key wherever it is shared."""

    id: str
    last_used_s: float
    is_in_use: bool
    files: Mapping[int, int]


@dataclass(frozen=True, slots=True)
class EvictionPlan:
    """`remove` in this order leaves `left_bytes`; `over_bytes` is what is over the bound even then, 0 if nothing is.
    `in_use` are those that stay for being in use."""

    remove: tuple[str, ...]
    left_bytes: int
    over_bytes: int
    in_use: tuple[str, ...]


def plan_eviction(candidates: Sequence[Candidate], other_bytes: int, need_bytes: int, max_bytes: int) -> EvictionPlan:
    """Make room for `need_bytes` beside `other_bytes` that cannot go, within `max_bytes`."""
    holders = Counter(key for candidate in candidates for key in candidate.files)
    sizes = {key: size for candidate in candidates for key, size in candidate.files.items()}
    left_bytes, remove = other_bytes + sum(sizes.values()), []
    for candidate in sorted(candidates, key=lambda candidate: candidate.last_used_s):
        if left_bytes + need_bytes <= max_bytes:
            break
        if candidate.is_in_use:
            continue
        remove.append(candidate.id)
        holders.subtract(candidate.files.keys())
        left_bytes -= sum(size for key, size in candidate.files.items() if holders[key] == 0)
    over_bytes = max(0, left_bytes + need_bytes - max_bytes)
    in_use = tuple(candidate.id for candidate in candidates if candidate.is_in_use)
    return EvictionPlan(tuple(remove), left_bytes, over_bytes, in_use)
