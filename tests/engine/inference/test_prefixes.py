from __future__ import annotations

from dataclasses import replace
from itertools import count
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.backend import choose_prefix_limits, prepare_sequence
from engine.config import Settings
from engine.inference.prefixes import PrefixLimits, block_hashes
from engine.inference.request import Delta, Message, Request, SamplingParams, Timing
from engine.inference.runner import Runner
from engine.inference.sequence import Sequence
from engine.inference.stats import PrefixStats
from engine.models.loader import LoadedModel
from engine.scheduling.admission import Limits
from tests.fakes import FakeClock

_LIMITS = Limits(max_running=4, max_waiting=8, chunk_tokens=32, cache_tokens=4_000)
_KEEP = PrefixLimits(max_tokens=1_000, block_tokens=32)
_SYSTEM = "You are a careful assistant who answers in one short sentence. " * 3
_SAMPLING = SamplingParams(temperature=1.0, seed=7, max_tokens=12, top_logprobs=2)
_names = count()


class Bench:
    def __init__(self, loaded: LoadedModel, kept: PrefixLimits = _KEEP, limits: Limits = _LIMITS) -> None:
        self.loaded = loaded
        self.clock = FakeClock()
        self.runner = Runner(loaded, limits, self.clock, lambda _sequence, _finished: None, kept)

    def submit(self, question: str, system: str = _SYSTEM, **fields: Any) -> Sequence:
        messages = (Message("system", system), Message("user", question))
        request = Request("tiny", messages, _SAMPLING, 60.0, request_id=f"p{next(_names)}", **fields)
        timing = Timing(self.clock.wall(), self.clock.monotonic())
        sequence = prepare_sequence(self.loaded, self.runner.limits, request, timing, Settings())
        self.runner.submit(sequence)
        return sequence

    def ask(self, question: str, **fields: Any) -> Sequence:
        sequence = self.submit(question, **fields)
        self.run()
        return sequence

    def run(self) -> None:
        while self.runner.step():
            self.clock.advance(0.1)

    def stats(self) -> PrefixStats:
        stats = self.runner.stats().prefixes
        assert stats is not None
        return stats


def _answer(sequence: Sequence) -> list[tuple[int, float | None, Any]]:
    events = [event for event in sequence.stream.poll() if isinstance(event, Delta)]
    return [(token.token_id, token.logprob, token.top) for event in events for token in event.tokens]


def _cached(sequence: Sequence) -> int:
    assert sequence.stream.finished is not None
    return sequence.stream.finished.num_cached_tokens


def test_a_prompt_that_begins_as_an_earlier_one_computes_only_the_rest(tiny: LoadedModel) -> None:
    bench = Bench(tiny)
    first = bench.ask("What is rain?")
    num_steps = bench.runner.stats().num_steps
    second = bench.ask("What is snow?")
    assert _cached(first) == 0
    shared = _shared(first, second) // 32 * 32
    assert _cached(second) == shared >= 160
    assert bench.runner.stats().num_steps - num_steps == num_steps - shared // 32
    assert bench.stats().num_found_tokens == shared
    assert bench.stats().hit_rate == shared / (first.num_prompt_tokens + second.num_prompt_tokens)


def _shared(one: Sequence, other: Sequence) -> int:
    pairs = zip(one.token_ids, other.token_ids, strict=False)
    return next(index for index, (a, b) in enumerate(pairs) if a != b)


def test_the_answer_has_the_same_bits_with_and_without(tiny: LoadedModel) -> None:
    questions = ["What is rain?", "What is snow?", "What is rain?", "And hail, after all that?"]
    without = Bench(tiny, PrefixLimits())
    within = Bench(tiny)
    alone = [_answer(without.ask(question)) for question in questions]
    assert [_answer(within.ask(question)) for question in questions] == alone
    together = [within.submit(question) for question in questions]
    within.run()
    assert [_answer(sequence) for sequence in together] == alone
    assert all(_cached(sequence) for sequence in together)


def test_the_same_prompt_again_computes_its_last_block(tiny: LoadedModel) -> None:
    bench = Bench(tiny)
    first, second = bench.ask("Why?"), bench.ask("Why?")
    assert _cached(second) == (first.num_prompt_tokens - 1) // 32 * 32
    assert _answer(first) == _answer(second)


def test_requests_that_start_together_share_nothing_yet(tiny: LoadedModel) -> None:
    bench = Bench(tiny)
    together = [bench.submit("Why?"), bench.submit("Why?")]
    bench.run()
    assert [_cached(sequence) for sequence in together] == [0, 0]
    kept = bench.stats().num_kept_tokens
    assert kept == together[0].num_prompt_tokens // 32 * 32


@pytest.mark.parametrize("across_keys", [False, True])
def test_whose_prompts_share(tiny: LoadedModel, across_keys: bool) -> None:
    bench = Bench(tiny, replace(_KEEP, across_keys=across_keys))
    bench.ask("Why?", key_id="ann")
    assert (_cached(bench.ask("Why?", key_id="bob")) > 0) is across_keys
    assert _cached(bench.ask("Why?", key_id="ann")) > 0


def test_the_least_recently_used_goes_first_and_of_a_prompt_its_end(tiny: LoadedModel) -> None:
    bench = Bench(tiny, replace(_KEEP, max_tokens=10 * 32))
    old = bench.ask("Why?", system="An old system prompt. " * 12)
    kept = old.num_prompt_tokens // 32 * 32
    assert 5 * 32 < kept < 10 * 32
    bench.ask("Why?", system="Another one that is new. " * 8)
    assert bench.stats().num_kept_tokens == 10 * 32
    again = bench.ask("Why?", system="An old system prompt. " * 12)
    assert 0 < _cached(again) < kept - 32


def test_what_is_kept_makes_room_for_running_requests(tiny: LoadedModel) -> None:
    bench = Bench(tiny, limits=replace(_LIMITS, cache_tokens=400))
    bench.ask("Why?")
    kept = bench.stats().num_kept_tokens
    long = bench.submit("Why? " * 12)
    assert long.reserved_tokens + kept > 400
    while bench.runner.step():
        stats = bench.runner.stats()
        assert stats.prefixes is not None
        assert stats.cache_tokens_reserved + stats.prefixes.num_kept_tokens <= 400


def test_nothing_is_kept_where_that_is_off(tiny: LoadedModel) -> None:
    bench = Bench(tiny, PrefixLimits())
    assert [_cached(bench.ask("Why?")) for _ in range(2)] == [0, 0]
    assert bench.runner.stats().prefixes is None


def test_what_is_found_saves_what_computing_it_took(tiny: LoadedModel) -> None:
    bench = Bench(tiny)
    ticking = bench.clock.monotonic

    def monotonic() -> float:  # every reading is a second later, so a step takes two or more
        bench.clock.advance(1.0)
        return ticking()

    bench.clock.monotonic = monotonic  # type: ignore[method-assign]
    assert bench.stats().saved_s is None
    assert bench.stats().hit_rate is None
    bench.ask("Why?")
    assert bench.stats().saved_s == 0
    bench.ask("Why?")
    assert (bench.stats().saved_s or 0) > 5


def test_limits_follow_the_settings(tiny: LoadedModel) -> None:
    per_token = tiny.info.cache_bytes_per_token
    assert choose_prefix_limits(tiny, _LIMITS, Settings()) == PrefixLimits(1_000, 32, False)
    some = Settings(prefix_cache_gib=500 * per_token / 2**30, prefix_sharing="all")
    assert choose_prefix_limits(tiny, _LIMITS, some) == PrefixLimits(500, 32, True)
    assert choose_prefix_limits(tiny, _LIMITS, Settings(prefix_cache_gib=0)).max_tokens == 0
    assert choose_prefix_limits(tiny, _LIMITS, Settings(prefix_cache_gib=4_000)).max_tokens == 4_000


_ids = st.lists(st.integers(0, 3), max_size=40)


@given(_ids, _ids, st.integers(1, 8))
def test_as_many_hashes_are_common_as_blocks_are(one: list[int], other: list[int], size: int) -> None:
    ours, theirs = block_hashes(None, one, size), block_hashes(None, other, size)
    assert len(ours) == len(one) // size
    for index, (a, b) in enumerate(zip(ours, theirs, strict=False)):
        stop = (index + 1) * size
        assert (a == b) == (one[:stop] == other[:stop])
    assert not set(ours) & set(block_hashes("ann", one, size))
