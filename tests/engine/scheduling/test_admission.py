from __future__ import annotations

from dataclasses import replace
from itertools import count, pairwise

from hypothesis import given
from hypothesis import strategies as st

from engine.scheduling.admission import (
    Limits,
    Load,
    Queue,
    admit,
    allow_queueing_s,
    estimate_wait_s,
    judge_arrival,
    plan_step,
)

_ROOMY = Limits(max_running=4, max_waiting=8, chunk_tokens=32, cache_tokens=1_000)
_LIMITS = st.builds(
    Limits,
    max_running=st.integers(1, 6),
    max_waiting=st.integers(0, 8),
    chunk_tokens=st.integers(1, 40),
    cache_tokens=st.integers(1, 300),
)
_ids = count()


@st.composite
def _loads(draw: st.DrawFn, max_size: int = 8) -> list[Load]:
    return [
        Load(f"r{next(_ids)}", reserved_tokens=tokens + draw(st.integers(1, 60)), num_computed=0, num_tokens=tokens)
        for tokens in draw(st.lists(st.integers(1, 120), max_size=max_size))
    ]


def _load(name: str, reserved: int = 100, computed: int = 0, tokens: int = 10) -> Load:
    return Load(name, reserved, computed, tokens)


@given(waiting=_loads(), running=_loads(4), limits=_LIMITS)
def test_admission_keeps_limits_and_order(waiting: list[Load], running: list[Load], limits: Limits) -> None:
    decision = admit(waiting, running, limits)
    num_admitted = len(decision.admitted)
    assert list(decision.admitted) == [load.request_id for load in waiting[:num_admitted]]
    if num_admitted:
        together = [*running, *waiting[:num_admitted]]
        assert len(together) <= limits.max_running
        assert sum(load.reserved_tokens for load in together) <= limits.cache_tokens
    assert (decision.held_back is None) == (num_admitted == len(waiting))


@given(waiting=_loads(), running=_loads(4), limits=_LIMITS)
def test_nobody_waits_who_fits(waiting: list[Load], running: list[Load], limits: Limits) -> None:
    num_admitted = len(admit(waiting, running, limits).admitted)
    if num_admitted < len(waiting):
        together = [*running, *waiting[: num_admitted + 1]]
        reserved = sum(load.reserved_tokens for load in together)
        assert len(together) > limits.max_running or reserved > limits.cache_tokens


def test_a_short_request_does_not_overtake_a_long_one() -> None:
    decision = admit([_load("long", 901), _load("short", 1)], [_load("here", 100)], _ROOMY)
    assert decision.admitted == ()
    assert decision.held_back == "901 tokens of cache are needed, 900 are free"


def test_reason_when_the_batch_is_full() -> None:
    running = [_load(f"r{index}", 1) for index in range(4)]
    assert admit([_load("next", 1)], running, _ROOMY).held_back == "all 4 places in the batch are taken"


def test_nothing_waits() -> None:
    assert admit([], [], _ROOMY).held_back is None


_QUEUES = st.builds(
    Queue,
    num_running=st.integers(0, 6),
    num_waiting=st.integers(0, 20),
    num_waiting_tokens=st.integers(0, 5_000),
    start_gap_s=st.none() | st.floats(0, 100),
)


@given(limits=_LIMITS, queue=_QUEUES, tokens=st.integers(1, 3_000), bound=st.none() | st.integers(1, 5_000))
def test_what_may_wait_is_bounded(limits: Limits, queue: Queue, tokens: int, bound: int | None) -> None:
    limits = replace(limits, max_waiting_tokens=bound)
    refusal = judge_arrival(tokens, queue, limits)
    if refusal is None:
        assert queue.num_waiting < limits.max_waiting + limits.max_running
        assert bound is None or queue.num_waiting == 0 or queue.num_waiting_tokens + tokens <= bound
    else:
        assert 1 <= refusal.retry_after_s <= 60


def test_a_full_queue_says_how_full_and_when_to_come_back() -> None:
    refusal = judge_arrival(5, Queue(4, 8, 100, start_gap_s=3.0), _ROOMY)
    assert refusal is not None
    assert refusal.reason == "8 requests are waiting, at most 8 may"
    assert (refusal.retry_after_s, refusal.setting) == (3.0, "CONSOLE_MAX_WAITING")


def test_prompts_that_wait_are_bounded_by_their_tokens() -> None:
    limits = replace(_ROOMY, max_waiting_tokens=1_000)
    assert judge_arrival(100, Queue(4, 2, 900), limits) is None
    refusal = judge_arrival(101, Queue(4, 2, 900, start_gap_s=9_000.0), limits)
    assert refusal is not None
    assert refusal.reason == (
        "prompts of 900 tokens are waiting, with this one's 101 they would be more than the 1,000 that may"
    )
    assert (refusal.retry_after_s, refusal.setting) == (20.0, "CONSOLE_MAX_WAITING_TOKENS")


def test_a_prompt_above_the_bound_may_wait_alone() -> None:
    assert judge_arrival(5_000, Queue(4, 0, 0), replace(_ROOMY, max_waiting_tokens=10)) is None


def test_a_wait_is_between_a_second_and_a_minute() -> None:
    assert estimate_wait_s(1, 0.01) == 1.0
    assert estimate_wait_s(10, 2.5) == 25.0
    assert estimate_wait_s(1_000, 1.0) == 60.0
    assert estimate_wait_s(3, None) == 3.0


def test_the_shorter_time_in_the_queue_counts() -> None:
    assert allow_queueing_s(None, _ROOMY) is None
    assert allow_queueing_s(5.0, _ROOMY) == 5.0
    waits = replace(_ROOMY, queue_timeout_s=3.0)
    assert [allow_queueing_s(asked, waits) for asked in (None, 2.0, 5.0)] == [3.0, 2.0, 3.0]


@st.composite
def _running(draw: st.DrawFn, chunk_tokens: int) -> list[Load]:
    """Requests as they can be between two steps: at a chunk's border of their prompt, or writing."""
    loads = []
    for index in range(draw(st.integers(0, 6))):
        tokens = draw(st.integers(1, 150))
        if draw(st.booleans()):
            computed = tokens - 1
        else:
            computed = draw(st.integers(0, (tokens - 1) // chunk_tokens)) * chunk_tokens
        loads.append(Load(f"r{index}", tokens + 10, computed, tokens))
    return loads


@given(data=st.data(), chunk_tokens=st.integers(1, 40))
def test_a_step_is_bounded_and_makes_progress(data: st.DataObject, chunk_tokens: int) -> None:
    running = data.draw(_running(chunk_tokens))
    chunks = plan_step(running, replace(_ROOMY, chunk_tokens=chunk_tokens))
    assert bool(chunks) == bool(running)
    by_id = {load.request_id: load for load in running}
    assert len({chunk.request_id for chunk in chunks}) == len(chunks)
    num_prompt_tokens = 0
    for chunk in chunks:
        load = by_id[chunk.request_id]
        assert 1 <= chunk.num_tokens <= load.num_tokens - load.num_computed
        if load.num_tokens - load.num_computed > 1 or load.num_computed == 0:
            num_prompt_tokens += chunk.num_tokens
    assert num_prompt_tokens <= chunk_tokens


@given(data=st.data(), chunk_tokens=st.integers(1, 40))
def test_whoever_writes_gets_a_token_in_every_step(data: st.DataObject, chunk_tokens: int) -> None:
    running = data.draw(_running(chunk_tokens))
    planned = {chunk.request_id for chunk in plan_step(running, replace(_ROOMY, chunk_tokens=chunk_tokens))}
    writing = {load.request_id for load in running if load.num_computed and load.num_tokens - load.num_computed == 1}
    assert writing <= planned


def _cuts(target: Load, others: list[Load], limits: Limits) -> list[int]:
    """Where the target's tokens are cut while the others, ahead of it, run and leave."""
    loads = [*others, target]
    cuts: list[int] = []
    for _ in range(1_000):
        for chunk in plan_step(loads, limits):
            index = next(i for i, load in enumerate(loads) if load.request_id == chunk.request_id)
            done = loads[index].num_computed + chunk.num_tokens
            if chunk.request_id == target.request_id:
                cuts.append(done)
            loads[index] = replace(loads[index], num_computed=done)
        loads = [load for load in loads if load.num_computed < load.num_tokens]
        if all(load.request_id != target.request_id for load in loads):
            return cuts
    raise AssertionError("the request never ended")


@given(data=st.data(), chunk_tokens=st.integers(1, 40), tokens=st.integers(1, 150))
def test_cuts_do_not_depend_on_who_else_runs(data: st.DataObject, chunk_tokens: int, tokens: int) -> None:
    limits = replace(_ROOMY, chunk_tokens=chunk_tokens)
    target = Load("target", tokens + 10, 0, tokens)
    alone = _cuts(target, [], limits)
    assert _cuts(target, data.draw(_running(chunk_tokens)), limits) == alone
    assert all(cut % chunk_tokens == 0 for cut in alone[:-1])
    assert alone[-1] == tokens


@given(data=st.data(), chunk_tokens=st.integers(1, 40), tokens=st.integers(1, 150))
def test_tokens_that_belong_together_are_run_together(data: st.DataObject, chunk_tokens: int, tokens: int) -> None:
    """Whoever else runs, and in no more tokens than a chunk or they have."""
    limits = replace(_ROOMY, chunk_tokens=chunk_tokens)
    ends = sorted(data.draw(st.sets(st.integers(0, tokens), max_size=8)))
    wholes = tuple(zip(ends[::2], ends[1::2], strict=False))
    target = Load("target", tokens + 10, 0, tokens, wholes)
    cuts = _cuts(target, [], limits)
    assert _cuts(target, data.draw(_running(chunk_tokens)), limits) == cuts
    assert not any(begin < cut < end for begin, end in wholes for cut in cuts)
    longest = max((end - begin for begin, end in wholes), default=0)
    assert max(end - begin for begin, end in pairwise([0, *cuts])) <= max(chunk_tokens, longest)


def test_a_whole_is_cut_off_before_and_behind() -> None:
    assert _cuts(Load("a", 200, 0, 100, ((20, 36), (60, 100))), [], _ROOMY) == [20, 36, 60, 100]
    assert _cuts(Load("a", 200, 0, 100, ((0, 70),)), [], _ROOMY) == [70, 96, 100]


def test_prompts_share_a_step_while_they_fit() -> None:
    running = [_load("a", tokens=20), _load("b", tokens=12), _load("c", tokens=1), _load("d", computed=9)]
    planned = [(chunk.request_id, chunk.num_tokens) for chunk in plan_step(running, _ROOMY)]
    assert planned == [("a", 20), ("b", 12), ("d", 1)]


def test_a_prompt_that_does_not_fit_is_not_overtaken_by_a_shorter_one() -> None:
    running = [_load("a", tokens=20), _load("b", tokens=13), _load("c", tokens=2)]
    assert [chunk.request_id for chunk in plan_step(running, _ROOMY)] == ["a"]
