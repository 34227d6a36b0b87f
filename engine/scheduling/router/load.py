"""What it would cost to send a request to an instance: how busy it is, how slow of late, and what it has cached.

Each part lies between 0 and its weight (the queue up to four times its weight, the cached prompt below zero), so the
parts can be read beside each other. A free place in the batch is worth more than a cached prompt.
"""

from __future__ import annotations

from engine.scheduling.router.candidate import Candidate
from engine.scheduling.router.decision import CostPart

_QUEUE = 1.0
_LONGEST_QUEUE = 4.0
_RUNNING = 0.5
_KV = 0.5
_SLOWNESS = 0.5
_CACHED_PROMPT = 0.4
# Places in a batch where they are not known, as of a remote instance.
_USUAL_PLACES = 16


def cost_parts(candidate: Candidate, best_ttft_p95_s: float | None, cached_share: float) -> tuple[CostPart, ...]:
    """The parts, the lowest sum wins. `best_ttft_p95_s` is the least among those that can serve, `cached_share` the
    share of the prompt (0 to 1) that this instance has seen lately."""
    places = candidate.max_running or _USUAL_PLACES
    parts = [
        CostPart(
            "queue",
            _QUEUE * min(candidate.num_waiting / places, _LONGEST_QUEUE),
            f"{candidate.num_waiting:,} waiting",
        ),
        CostPart(
            "batch", _RUNNING * min(candidate.num_running / places, 1.0), f"{candidate.num_running} of {places} running"
        ),
    ]
    if candidate.kv_used is not None:
        parts.append(CostPart("KV cache", _KV * candidate.kv_used, f"{candidate.kv_used:.0%} reserved"))
    if candidate.ttft_p95_s is not None and best_ttft_p95_s:
        parts.append(_slowness(candidate.ttft_p95_s, best_ttft_p95_s))
    if cached_share > 0:
        parts.append(CostPart("cached prompt", -_CACHED_PROMPT * cached_share, f"{cached_share:.0%} seen lately"))
    return tuple(parts)


def _slowness(ttft_p95_s: float, best_s: float) -> CostPart:
    """0 for the fastest, its full weight from twice the fastest's P95 on."""
    value = _SLOWNESS * min(max(ttft_p95_s / best_s - 1.0, 0.0), 1.0)
    return CostPart("TTFT P95", value, f"{ttft_p95_s * 1e3:,.0f} ms, the best has {best_s * 1e3:,.0f} ms")
