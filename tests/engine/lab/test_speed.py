"""Rates from known times, and answers through the real step loop of a tiny model."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine import Finished, FinishReason, Settings
from engine.backend import LocalBackend
from engine.clock import SystemClock
from engine.errors import ContextLengthError
from engine.inference.request import Timing
from engine.lab.speed import Stage, tokens_per_s
from engine.models.loader import LoadedModel


def finished(received_s: float, last_token_s: float, num_tokens: int) -> Finished:
    timing = Timing(0.0, received_s, received_s, received_s, last_token_s, last_token_s)
    return Finished("r", FinishReason.LENGTH, 3, num_tokens, 0, timing)


def test_rate_is_all_tokens_over_the_whole_time() -> None:
    assert tokens_per_s([finished(10.0, 12.0, 20)]) == 10.0
    assert tokens_per_s([finished(10.0, 12.0, 20), finished(10.0, 14.0, 20)]) == 10.0


@pytest.fixture
def num_steps() -> list[int]:
    """One entry a step."""
    return []


@pytest.fixture
def stage(tiny: LoadedModel, tmp_path: Path, num_steps: list[int]) -> Stage:
    clock = SystemClock()
    backend = LocalBackend(Settings(home=tmp_path, model="none"), clock)
    runner = backend.start(tiny, lambda _sequence, _finished: None)
    return Stage(backend, tiny, runner, clock, lambda: num_steps.append(1))


def test_answers_are_greedy_and_in_order(stage: Stage) -> None:
    together = stage.answer(("one", "two"), 6)
    assert [stage.answer((prompt,), 6)[0] for prompt in ("one", "two")] == list(together)
    assert together[0] != together[1]
    assert all(answer.num_tokens <= 6 for answer in together)


def test_eight_streams_share_steps(stage: Stage, num_steps: list[int]) -> None:
    fractions: list[float] = []
    found = stage.measure(("one", "two"), 8, 2, fractions.append)
    assert len(num_steps) == 2 * (8 + 8)  # a repeat: one stream of 8 tokens, then eight at once
    assert fractions == [0.0, 0.5]
    assert 0 < found.ttft_s.value < 60
    for estimate in (found.ttft_s, found.one_stream_tokens_per_s, found.eight_streams_tokens_per_s):
        assert estimate.low is not None
        assert estimate.high is not None
        assert 0 < estimate.low <= estimate.value <= estimate.high


def test_a_prompt_too_long_is_told(stage: Stage) -> None:
    with pytest.raises(ContextLengthError, match="shorten the prompt"):
        stage.answer(("x" * 3_000,), 4)
