from __future__ import annotations

from dataclasses import replace
from itertools import count

from hypothesis import given
from hypothesis import strategies as st

from engine.scheduling.admission import Limits, Load, admit, plan_step

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


def test_prompts_share_a_step_while_they_fit() -> None:
    running = [_load("a", tokens=20), _load("b", tokens=12), _load("c", tokens=1), _load("d", computed=9)]
    planned = [(chunk.request_id, chunk.num_tokens) for chunk in plan_step(running, _ROOMY)]
    assert planned == [("a", 20), ("b", 12), ("d", 1)]


def test_a_prompt_that_does_not_fit_is_not_overtaken_by_a_shorter_one() -> None:
    running = [_load("a", tokens=20), _load("b", tokens=13), _load("c", tokens=2)]
    assert [chunk.request_id for chunk in plan_step(running, _ROOMY)] == ["a"]
