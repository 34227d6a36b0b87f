"""Exact percentiles of values in Python; DuckDB gives those of stored records by the same definition."""

from __future__ import annotations

import math
from collections.abc import Sequence


def percentile(values: Sequence[float], q: float) -> float | None:
    """The q-quantile of `values` (q from 0 to 1, so 0.95 is P95), in their unit, whatever their order.

    Linear interpolation between the two nearest ranks: numpy's default and DuckDB's quantile_cont (Hyndman
    and Fan 1996, type 7). None for an empty sample, because zero would read as instant. ValueError for a q
    outside 0..1.
    """
    if not 0.0 <= q <= 1.0:
        raise ValueError(f"q is {q}, but must lie between 0 and 1; give 0.95 for P95")
    if not values:
        return None
    ordered = sorted(values)
    rank = q * (len(ordered) - 1)
    below = math.floor(rank)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (rank - below)
