"""Dividing requests by weight without remembering anything.

Weighted rendezvous hashing (Schindelhauer and Schomaker, 2005): each target draws -weight / ln(u), with u in (0, 1)
from a hash of key and name, and the highest draw wins. Over many keys each target wins its share of the weights; one
key always falls alike; and when a target goes away, only its own keys move.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from hashlib import blake2b

_STEPS = 2**64


def pick_weighted(key: str, weights: Mapping[str, float]) -> str:
    """The name that `key` falls to. `weights` holds at least one above 0."""
    return max(weights, key=lambda name: (_draw(key, name, weights[name]), name))


def _draw(key: str, name: str, weight: float) -> float:
    if weight <= 0:
        return -math.inf
    digest = blake2b(f"{key}\0{name}".encode(errors="replace"), digest_size=8).digest()
    uniform = (int.from_bytes(digest) + 1) / (_STEPS + 2)
    return math.inf if uniform >= 1.0 else -weight / math.log(uniform)
