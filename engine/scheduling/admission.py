"""What the next forward pass carries: pure functions of plain numbers.

A waiting request starts when a place in the batch and cache for its whole length (prompt and longest answer) are
free, first come first served: nothing overtakes, so a long request is not starved by short ones, and a request
that has started never has to stop for memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one instance.

    Attributes:
        max_running: requests in one batch.
        max_waiting: requests queued before new ones are refused.
        chunk_tokens: prompt tokens in one forward pass. A longer prompt is cut at multiples of it, so that it does
            not hold up answers that are being written, and so that the cuts do not depend on who else runs.
        cache_tokens: tokens of key/value cache for all running requests together.
    """

    max_running: int
    max_waiting: int
    chunk_tokens: int
    cache_tokens: int


@dataclass(frozen=True, slots=True)
class Load:
    """One request as planning sees it: what it may grow to, what has been run, and what there is to run."""

    request_id: str
    reserved_tokens: int
    num_computed: int
    num_tokens: int


@dataclass(frozen=True, slots=True)
class Chunk:
    """Run `num_tokens` of this request's pending tokens now."""

    request_id: str
    num_tokens: int


@dataclass(frozen=True, slots=True)
class Admission:
    """Who starts now, and why the first of the others does not (None when nobody waits)."""

    admitted: tuple[str, ...]
    held_back: str | None


def admit(waiting: Sequence[Load], running: Sequence[Load], limits: Limits) -> Admission:
    """Take requests from the front of the queue while they fit."""
    admitted: list[str] = []
    places = limits.max_running - len(running)
    free = limits.cache_tokens - sum(load.reserved_tokens for load in running)
    for load in waiting:
        if places <= 0:
            return Admission(tuple(admitted), f"all {limits.max_running} places in the batch are taken")
        if load.reserved_tokens > free:
            reason = f"{load.reserved_tokens} tokens of cache are needed, {free} are free"
            return Admission(tuple(admitted), reason)
        admitted.append(load.request_id)
        places -= 1
        free -= load.reserved_tokens
    return Admission(tuple(admitted), None)


def plan_step(running: Sequence[Load], limits: Limits) -> tuple[Chunk, ...]:
    """One token for each request that is writing, and prompts in order of arrival up to `chunk_tokens` in all.

    At least one chunk is planned whenever anything runs.
    """
    chunks: list[Chunk] = []
    budget = limits.chunk_tokens
    is_prompt_planned = False
    for load in running:
        pending = load.num_tokens - load.num_computed
        if pending == 1 and load.num_computed > 0:
            chunks.append(Chunk(load.request_id, 1))
            continue
        size = min(pending, limits.chunk_tokens - load.num_computed % limits.chunk_tokens)
        if size <= budget or not is_prompt_planned:
            chunks.append(Chunk(load.request_id, size))
            budget -= size
        else:
            budget = 0
        is_prompt_planned = True
    return tuple(chunks)
