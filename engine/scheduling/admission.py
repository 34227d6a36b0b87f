"""Who may wait, who starts, and what the next forward pass carries: pure functions of plain numbers.

A waiting request starts when a place in the batch and cache for its whole length (prompt and longest answer) are
free, in the order that `fairness` gives. Nothing overtakes whoever is first in it, so a long request is not starved by
short ones, and a request that has started never has to stop for memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

# Tokens from a first one to before a last one, counted from the prompt's beginning.
Stretch = tuple[int, int]

_SHORTEST_RETRY_S, _LONGEST_RETRY_S = 1.0, 60.0


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one instance.

    Attributes:
        max_running: requests in one batch.
        max_waiting: requests queued before new ones are refused.
        chunk_tokens: prompt tokens in one forward pass. A longer prompt is cut at multiples of it, so that it does
            not hold up answers that are being written, and so that the cuts do not depend on who else runs. Tokens
            that may not be run apart are cut off before and behind instead, and may be more.
        cache_tokens: tokens of key/value cache for all running requests together.
        max_waiting_tokens: prompt tokens queued before new requests are refused; None for no bound.
        queue_timeout_s: seconds in the queue after which a request ends unless it started; None for no bound.
    """

    max_running: int
    max_waiting: int
    chunk_tokens: int
    cache_tokens: int
    max_waiting_tokens: int | None = None
    queue_timeout_s: float | None = None


@dataclass(frozen=True, slots=True)
class Queue:
    """What is here when one more request arrives. `start_gap_s` is the time between two starts at present, None where
    none was seen."""

    num_running: int
    num_waiting: int
    num_waiting_tokens: int
    start_gap_s: float | None = None


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request may not wait, when there may be room for it, and the setting that is the bound."""

    reason: str
    retry_after_s: float
    setting: str


@dataclass(frozen=True, slots=True)
class Load:
    """One request as planning sees it: what it may grow to, what has been run, what there is to run, and which tokens
    may not be run apart (those of an image that see each other both ways)."""

    request_id: str
    reserved_tokens: int
    num_computed: int
    num_tokens: int
    wholes: tuple[Stretch, ...] = ()


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


def judge_arrival(num_prompt_tokens: int, queue: Queue, limits: Limits) -> Refusal | None:
    """None when the request may join the queue.

    Free places in the batch count as room, because whoever takes them does not wait for long. A prompt longer than all
    that may wait is let into an empty queue, where it holds up nobody.
    """
    room = limits.max_waiting + max(0, limits.max_running - queue.num_running)
    if queue.num_waiting >= room:
        reason = f"{queue.num_waiting} requests are waiting, at most {limits.max_waiting} may"
        wait_s = estimate_wait_s(queue.num_waiting - room + 1, queue.start_gap_s)
        return Refusal(reason, wait_s, "CONSOLE_MAX_WAITING")
    bound = limits.max_waiting_tokens
    if bound is None or queue.num_waiting == 0 or queue.num_waiting_tokens + num_prompt_tokens <= bound:
        return None
    reason = (
        f"prompts of {queue.num_waiting_tokens:,} tokens are waiting, with this one's {num_prompt_tokens:,} they would "
        f"be more than the {bound:,} that may"
    )
    too_many = queue.num_waiting_tokens + num_prompt_tokens - bound
    num_starts = too_many * queue.num_waiting / max(1, queue.num_waiting_tokens)
    return Refusal(reason, estimate_wait_s(num_starts, queue.start_gap_s), "CONSOLE_MAX_WAITING_TOKENS")


def estimate_wait_s(num_starts: float, start_gap_s: float | None) -> float:
    """Seconds in which so many requests leave the queue at the present rate, between one second and one minute."""
    gap_s = _SHORTEST_RETRY_S if start_gap_s is None else start_gap_s
    return min(max(num_starts * gap_s, _SHORTEST_RETRY_S), _LONGEST_RETRY_S)


def allow_queueing_s(asked_s: float | None, limits: Limits) -> float | None:
    """How long a request may wait: what it asked for, or the instance's bound where that is shorter; None for any
    time."""
    return min((bound for bound in (asked_s, limits.queue_timeout_s) if bound is not None), default=None)


def admit(waiting: Iterable[Load], running: Sequence[Load], limits: Limits) -> Admission:
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
        size = _next_cut(load, limits.chunk_tokens) - load.num_computed
        if size <= budget or not is_prompt_planned:
            chunks.append(Chunk(load.request_id, size))
            budget -= size
        else:
            budget = 0
        is_prompt_planned = True
    return tuple(chunks)


def _next_cut(load: Load, chunk_tokens: int) -> int:
    """Where the next chunk of a prompt ends: at a multiple of `chunk_tokens`, or beside the whole that holds it."""
    cut = min(load.num_tokens, (load.num_computed // chunk_tokens + 1) * chunk_tokens)
    for begin, end in load.wholes:
        if begin < cut < end:
            return begin if begin > load.num_computed else end
    return cut
