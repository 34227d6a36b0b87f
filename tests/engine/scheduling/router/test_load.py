from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.scheduling.router import Candidate
from engine.scheduling.router.load import cost_parts

IDLE = Candidate("idle", max_running=8, kv_used=0.0, ttft_p95_s=0.1)


def cost(candidate: Candidate, cached_share: float = 0.0) -> float:
    return sum(part.value for part in cost_parts(candidate, 0.1, cached_share))


@pytest.mark.parametrize(
    "busier",
    [{"num_waiting": 3}, {"num_running": 4}, {"kv_used": 0.5}, {"ttft_p95_s": 0.15}],
)
def test_each_kind_of_load_costs(busier: dict[str, float]) -> None:
    assert cost(replace(IDLE, **busier)) > cost(IDLE) + 0.1


def test_a_cached_prompt_is_worth_something_but_no_queue() -> None:
    assert cost(IDLE, 1.0) < cost(IDLE)
    assert cost(replace(IDLE, num_running=8, num_waiting=8), 1.0) > cost(IDLE)


def test_the_parts_say_what_they_were_computed_from() -> None:
    busy = replace(IDLE, num_running=4, num_waiting=2, kv_used=0.25, ttft_p95_s=0.2)
    notes = {part.name: part.note for part in cost_parts(busy, 0.1, 0.5)}
    assert notes == {
        "queue": "2 waiting",
        "batch": "4 of 8 running",
        "KV cache": "25% reserved",
        "TTFT P95": "200 ms, the best has 100 ms",
        "cached prompt": "50% seen lately",
    }


def test_what_is_not_known_is_no_part() -> None:
    assert [part.name for part in cost_parts(Candidate("x"), None, 0.0)] == ["queue", "batch"]


@given(st.integers(0, 10_000), st.integers(0, 10_000), st.floats(0, 1), st.floats(0.001, 1_000))
def test_no_part_outgrows_the_others(num_waiting: int, num_running: int, kv_used: float, ttft_p95_s: float) -> None:
    candidate = replace(IDLE, num_waiting=num_waiting, num_running=num_running, kv_used=kv_used, ttft_p95_s=ttft_p95_s)
    assert all(-0.4 <= part.value <= 4.0 for part in cost_parts(candidate, 0.001, 1.0))
