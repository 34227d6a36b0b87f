from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dashboard.components.phases import split_phases
from tests.engine.latency.builders import CANCELLED_IN_QUEUE, PLAIN


def test_finished_request_has_four_phases() -> None:
    phases = split_phases(PLAIN)
    assert [phase.name for phase in phases] == ["queue", "prefill", "decode", "finish"]
    assert [phase.duration_s for phase in phases] == pytest.approx([0.01, 0.24, 1.0, 0.01])


def test_request_cancelled_in_the_queue_was_only_there() -> None:
    (phase,) = split_phases(CANCELLED_IN_QUEUE)
    assert (phase.name, phase.start_s, phase.duration_s) == ("queue", 0.0, 0.5)


def test_request_cancelled_in_prefill_ends_there() -> None:
    record = replace(PLAIN, first_token_s=None, last_token_s=None, finished_s=0.2)
    assert [phase.name for phase in split_phases(record)] == ["queue", "prefill"]


@given(st.lists(st.floats(0, 1e4), min_size=4, max_size=4).map(sorted), st.integers(0, 3))
def test_phases_cover_the_request_without_gap(moments_s: list[float], num_reached: int) -> None:
    reached = [moment_s if index < num_reached else None for index, moment_s in enumerate(moments_s[:3])]
    record = replace(
        PLAIN, scheduled_s=reached[0], first_token_s=reached[1], last_token_s=reached[2], finished_s=moments_s[3]
    )
    phases = split_phases(record)
    assert phases[0].start_s == 0
    assert all(phase.duration_s >= 0 for phase in phases)
    assert all(one.start_s + one.duration_s == pytest.approx(next_.start_s) for one, next_ in pairwise(phases))
    assert sum(phase.duration_s for phase in phases) == pytest.approx(record.finished_s)
