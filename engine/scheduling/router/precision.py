"""Which instances come closest to the precision that was asked for."""

from __future__ import annotations

import math
from collections.abc import Sequence

from engine.scheduling.router.candidate import Candidate, Precision

BALANCED_BITS = 8.0
# Quantizations of one scheme differ by their scales: 4.25 and 4.5 bits are the same precision.
_SAME_BITS = 0.75


def closest(candidates: Sequence[Candidate], precision: Precision | None) -> list[Candidate]:
    """Those of the wanted precision, or of the nearest there is. One whose bits are not known is last."""
    if precision is None or not candidates:
        return list(candidates)
    distances = {candidate.name: _distance(candidate.bits_per_weight, precision) for candidate in candidates}
    nearest = min(distances.values())
    if nearest == math.inf:
        return list(candidates)
    return [candidate for candidate in candidates if distances[candidate.name] <= nearest + _SAME_BITS]


def _distance(bits: float | None, precision: Precision) -> float:
    if bits is None:
        return math.inf
    if precision is Precision.BALANCED:
        return abs(bits - BALANCED_BITS)
    return bits if precision is Precision.FAST else -bits
