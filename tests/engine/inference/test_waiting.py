from __future__ import annotations

from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.inference.request import Message, Request, Timing
from engine.inference.sequence import Sequence
from engine.inference.waiting import RequestQueue
from engine.scheduling.admission import Limits
from tests.fakes import FakeSequence

_LIMITS = Limits(max_running=1, max_waiting=2, chunk_tokens=32, cache_tokens=1_000, max_waiting_tokens=20)


def _ask(name: str, key_id: str | None = None, num_tokens: int = 4, received_s: float = 0.0) -> Sequence:
    """A request as far as the queue looks at it."""
    request = Request("m", (Message("user", "word " * num_tokens),), request_id=name, key_id=key_id)
    return cast(Sequence, FakeSequence(request, Timing(0.0, received_s), ()))


def _order(queue: RequestQueue, running: Any = ()) -> list[str]:
    return [sequence.request_id for sequence in queue.take_turns(10.0, running)]


@pytest.fixture
def queue() -> RequestQueue:
    return RequestQueue(_LIMITS)


def test_it_counts_requests_and_tokens(queue: RequestQueue) -> None:
    first, second = _ask("a"), _ask("b", num_tokens=7)
    for sequence in (first, second):
        queue.add(sequence, ())
    assert (len(queue), queue.num_tokens, list(queue)) == (2, 11, [first, second])
    assert queue.get("b") is second
    queue.remove(first)
    queue.remove(first)
    assert (len(queue), queue.num_tokens, queue.get("a")) == (1, 7, None)


def test_it_refuses_what_is_too_much(queue: RequestQueue) -> None:
    queue.add(_ask("a", num_tokens=15), ())
    assert queue.judge(5, 1, 0.0) is None
    assert queue.judge(6, 1, 0.0) is not None
    queue.add(_ask("b", num_tokens=1), ())
    assert queue.judge(1, 1, 0.0) is not None


def test_what_a_running_request_has_had_so_far_counts(queue: RequestQueue) -> None:
    running = _ask("running", "busy", num_tokens=1)
    queue.add(_ask("busy-2", "busy"), [running])
    queue.add(_ask("idle-1", "idle", received_s=1.0), [running])
    assert _order(queue, [running])[0] == "busy-2"
    cast(Any, running).num_output_tokens = 50
    assert _order(queue, [running])[0] == "idle-1"


def test_what_was_served_counts_while_others_are_here(queue: RequestQueue) -> None:
    other = _ask("other", "other")
    served = _ask("served", "busy", num_tokens=500)
    queue.add(_ask("busy-2", "busy"), ())
    queue.add(_ask("other-2", "other", received_s=1.0), ())
    assert _order(queue) == ["busy-2", "other-2"]
    queue.settle(served, [other])
    assert _order(queue, [other]) == ["other-2", "busy-2"]


def test_an_idle_queue_forgets(queue: RequestQueue) -> None:
    queue.settle(_ask("served", "busy", num_tokens=500), ())
    queue.add(_ask("busy-2", "busy"), ())
    queue.add(_ask("other", "other", received_s=1.0), ())
    assert _order(queue) == ["busy-2", "other"]


def test_who_comes_later_gets_no_credit_for_the_time_before(queue: RequestQueue) -> None:
    """The busy key was served 500 tokens while the other one was away; they take turns from here on."""
    running = _ask("running", "busy", num_tokens=500)
    for index in range(3):
        queue.add(_ask(f"busy-{index}", "busy", received_s=index), [running])
    for index in range(3):
        queue.add(_ask(f"late-{index}", "late", received_s=5 + index), [running])
    order = [name.partition("-")[0] for name in _order(queue, [running])]
    assert order == ["busy", "late"] * 3


@given(keys=st.lists(st.sampled_from(["a", "b", None]), max_size=20), removed=st.sets(st.integers(0, 19)))
def test_nothing_is_left_of_what_has_gone(keys: list[str | None], removed: set[int]) -> None:
    queue = RequestQueue(_LIMITS)
    sequences = [_ask(f"r{index}", key) for index, key in enumerate(keys)]
    for sequence in sequences:
        queue.add(sequence, ())
    for index in removed & set(range(len(keys))):
        queue.remove(sequences[index])
    left = [sequence for index, sequence in enumerate(sequences) if index not in removed]
    assert list(queue) == left
    assert sorted(_order(queue)) == sorted(sequence.request_id for sequence in left)
    assert queue.num_tokens == 4 * len(left)
