"""When what cannot join a running batch is run together, and how much of it at once: pure functions of plain numbers.

A text to embed waits for others until `max_texts` are there or the oldest has waited for `max_wait_s`, whichever is
first. While answers are being generated, embedding gets half of the time at most: after a batch as long again passes
before the next one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Window:
    """Bounds of one batch.

    Attributes:
        max_texts: that many waiting end the wait, and no more go into one batch.
        max_wait_s: the oldest waits no longer than this for others.
        max_tokens: in one forward pass, which is how long a request to generate may have to wait. A longer text is
            run in pieces of this size.
        max_tokens_beside: the same while answers are being generated, which stand still meanwhile.
    """

    max_texts: int
    max_wait_s: float
    max_tokens: int
    max_tokens_beside: int


@dataclass(frozen=True, slots=True)
class WaitingText:
    """A text as planning sees it: when it came, and its tokens that are still to be run."""

    received_s: float
    num_tokens: int
    is_begun: bool = False


@dataclass(frozen=True, slots=True)
class Batch:
    """How many tokens of each text, from the front of the queue, to run now; none when it is not yet time, and then
    after `wait_s` it is (None: nothing waits). `reason` says why now, or why not."""

    num_tokens: tuple[int, ...]
    wait_s: float | None
    reason: str


def plan_batch(
    waiting: Sequence[WaitingText],
    window: Window,
    now_s: float,
    *,
    is_generating: bool = False,
    not_before_s: float = 0.0,
) -> Batch:
    """Decide on the next batch. `waiting` is the queue or its first `window.max_texts`, oldest first; nothing
    overtakes, and only a text longer than a whole batch is cut. `not_before_s` counts while answers are generated."""
    if not waiting:
        return Batch((), None, "nothing waits")
    if is_generating and now_s < not_before_s:
        return Batch((), not_before_s - now_s, "it is the turn of the answers that are being generated")
    max_tokens = window.max_tokens_beside if is_generating else window.max_tokens
    why = _why_now(waiting, window, max_tokens, now_s)
    if why is None:
        left_s = waiting[0].received_s + window.max_wait_s - now_s
        return Batch((), left_s, f"{len(waiting)} of {window.max_texts} texts are there")
    return Batch(_fill(waiting[: window.max_texts], max_tokens), None, why)


def _why_now(waiting: Sequence[WaitingText], window: Window, max_tokens: int, now_s: float) -> str | None:
    if waiting[0].is_begun:
        return "a text is cut and has begun"
    if len(waiting) >= window.max_texts:
        return f"{window.max_texts} texts are there"
    if sum(text.num_tokens for text in waiting) >= max_tokens:
        return f"{max_tokens} tokens are there"
    if now_s - waiting[0].received_s >= window.max_wait_s:
        return f"the oldest has waited {window.max_wait_s * 1000:g} ms"
    return None


def _fill(waiting: Sequence[WaitingText], max_tokens: int) -> tuple[int, ...]:
    chunks: list[int] = []
    free = max_tokens
    for text in waiting:
        size = min(text.num_tokens, max_tokens)
        if size > free:
            break
        chunks.append(size)
        free -= size
        if size < text.num_tokens:
            break
    return tuple(chunks)


def earliest_next_s(began_s: float, ended_s: float) -> float:
    """The moment before which no batch begins while answers are generated, after one between these moments."""
    return ended_s + (ended_s - began_s)
