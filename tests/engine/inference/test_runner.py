from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import count
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.backend import prepare_sequence
from engine.clock import SystemClock
from engine.config import Settings
from engine.errors import InstanceNotReadyError, InvalidRequestError, QueueFullError, QueueTimeoutError
from engine.inference.choosing import choose
from engine.inference.forward import Packed
from engine.inference.prefixes import PrefixLimits
from engine.inference.request import Delta, Finished, FinishReason, Message, Request, SamplingParams, Timing, TokenInfo
from engine.inference.runner import Runner
from engine.inference.sequence import Sequence
from engine.latency.histogram import GAP_BOUNDS_S, Histogram
from engine.models.loader import LoadedModel
from engine.scheduling.admission import Limits
from tests.fakes import FakeClock

_LIMITS = Limits(max_running=4, max_waiting=8, chunk_tokens=32, cache_tokens=8_000)
_LONG = "The quick brown fox jumps over the lazy dog. " * 3
_GREEDY = SamplingParams(temperature=0.0, max_tokens=24)
_names = count()


class Bench:
    """A runner that the test steps by hand, with its clock and the ends it reported."""

    def __init__(self, loaded: LoadedModel, limits: Limits = _LIMITS, clock: Any = None) -> None:
        self.loaded = loaded
        self.clock: Any = clock or FakeClock()
        self.ended: list[Finished] = []
        self.runner = Runner(loaded, limits, self.clock, lambda _sequence, finished: self.ended.append(finished))

    def submit(
        self, prompt: str = "Hi", sampling: SamplingParams = _GREEDY, timeout_s: float = 60.0, **fields: Any
    ) -> Sequence:
        name = f"r{next(_names)}"
        request = Request("tiny", (Message("user", prompt),), sampling, timeout_s, request_id=name, **fields)
        timing = Timing(self.clock.wall(), self.clock.monotonic())
        sequence = prepare_sequence(self.loaded, self.runner.limits, request, timing, Settings())
        self.runner.submit(sequence)
        return sequence

    def run(self, limit: int = 2_000) -> None:
        for _ in range(limit):
            if not self.runner.step():
                return
        raise AssertionError("the runner never ran dry")


@pytest.fixture
def bench(tiny: LoadedModel) -> Bench:
    return Bench(tiny)


def _tokens(sequence: Sequence) -> list[TokenInfo]:
    return [token for event in sequence.stream.poll() if isinstance(event, Delta) for token in event.tokens]


def _text(sequence: Sequence) -> str:
    return "".join(event.text for event in sequence.stream.poll() if isinstance(event, Delta))


def _reason(sequence: Sequence) -> FinishReason | None:
    return None if sequence.stream.finished is None else sequence.stream.finished.reason


def _generate(loaded: LoadedModel, prompt: str, num_tokens: int) -> list[int]:
    """The peer: transformers' own greedy search."""
    model = loaded.model
    before = model.config._attn_implementation
    model.set_attn_implementation("sdpa")
    try:
        text = loaded.tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True
        )
        ids = loaded.tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
        output = model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=num_tokens, do_sample=False, pad_token_id=0
        )
        return [int(token_id) for token_id in output[0, ids.shape[1] :]]
    finally:
        model.set_attn_implementation(before)


@pytest.mark.parametrize("prompt", ["Hi", "What is the capital of France?", _LONG])
def test_greedy_equals_generate(bench: Bench, prompt: str) -> None:
    sequence = bench.submit(prompt, replace(_GREEDY, max_tokens=60))
    bench.run()
    produced = [token.token_id for token in _tokens(sequence)]
    expected = _generate(bench.loaded, prompt, 60)
    assert produced == expected


def _ask_all(bench: Bench, questions: Iterable[tuple[str, SamplingParams]], joins: Iterable[int]) -> list[Sequence]:
    """Submit each question after so many more steps; all that run share their batches."""
    sequences = []
    for (prompt, sampling), num_steps in zip(questions, joins, strict=True):
        for _ in range(num_steps):
            bench.runner.step()
        sequences.append(bench.submit(prompt, sampling))
    bench.run()
    return sequences


def _answer(sequence: Sequence) -> tuple[list[tuple[int, float | None]], str]:
    events = [event for event in sequence.stream.poll() if isinstance(event, Delta)]
    tokens = [(token.token_id, token.logprob) for event in events for token in event.tokens]
    return tokens, "".join(event.text for event in events)


def _seeded(seed: int, **fields: Any) -> SamplingParams:
    return SamplingParams(seed=seed, top_logprobs=2, max_tokens=30, logit_bias={257: -100.0}, **fields)


@pytest.mark.parametrize("prompt", ["Hi", _LONG])
@pytest.mark.parametrize("fields", [{}, {"temperature": 0.0}, {"top_p": 0.9, "top_k": 40, "repetition_penalty": 1.3}])
def test_same_seed_same_bits_alone_and_in_a_batch(tiny: LoadedModel, prompt: str, fields: dict[str, Any]) -> None:
    alone = _answer(_ask_all(Bench(tiny), [(prompt, _seeded(7, **fields))], [0])[0])
    others = [(_LONG + str(index), _seeded(index)) for index in range(3)]
    questions = [others[0], (prompt, _seeded(7, **fields)), others[1], others[2]]
    for joins in ([0, 0, 0, 0], [0, 3, 1, 9], [0, 12, 2, 2]):
        together = _ask_all(Bench(tiny), questions, joins)
        assert _answer(together[1]) == alone


@settings(max_examples=12)
@given(data=st.data())
def test_any_company_leaves_an_answer_as_it_is(tiny: LoadedModel, data: st.DataObject) -> None:
    target = (_LONG[:50], _seeded(3, top_p=0.95))
    alone = _answer(_ask_all(Bench(tiny), [target], [0])[0])
    prompts = data.draw(st.lists(st.text("abcdefgh ", min_size=1, max_size=90).filter(str.strip), max_size=5))
    questions = [(prompt, _seeded(index)) for index, prompt in enumerate(prompts)]
    place = data.draw(st.integers(0, len(questions)))
    questions.insert(place, target)
    joins = data.draw(st.lists(st.integers(0, 8), min_size=len(questions), max_size=len(questions)))
    bench = Bench(tiny)
    sequences = _ask_all(bench, questions, joins)
    assert _answer(sequences[place]) == alone


def test_other_seeds_give_other_answers(bench: Bench) -> None:
    first, second = (bench.submit("Hi", _seeded(seed)) for seed in (1, 2))
    bench.run()
    assert _answer(first) != _answer(second)


def test_logprobs_come_with_every_token(bench: Bench) -> None:
    sequence = bench.submit("Hi", SamplingParams(temperature=0.0, max_tokens=5, top_logprobs=3))
    bench.run()
    for token in _tokens(sequence):
        assert token.logprob is not None
        assert token.logprob == max(value for _, _, value in token.top)
        assert len(token.top) == 3
        assert token.top[0][:2] == (token.token_id, token.text)


def test_max_tokens_is_exact(bench: Bench) -> None:
    sequence = bench.submit("Hi", SamplingParams(max_tokens=9, seed=1, logit_bias={257: -100.0}))
    bench.run()
    assert len(_tokens(sequence)) == 9
    assert _reason(sequence) is FinishReason.LENGTH
    assert bench.ended[0].num_output_tokens == 9


def test_an_end_token_stops(bench: Bench) -> None:
    sequence = bench.submit("Hi", SamplingParams(temperature=0.0, logit_bias={257: 100.0}))
    bench.run()
    finished = sequence.stream.finished
    assert finished is not None
    assert (finished.reason, finished.num_output_tokens) == (FinishReason.STOP, 1)
    assert _text(sequence) == ""


def test_a_stop_string_over_several_tokens(bench: Bench) -> None:
    banned = dict.fromkeys(range(258), -100.0)
    letters = {int(bench.loaded.tokenizer(letter)["input_ids"][0]): 0.0 for letter in "ab"}
    params = SamplingParams(seed=5, max_tokens=200, stop=("abba",), logit_bias={**banned, **letters})
    stopped, free = bench.submit("Hi", params), bench.submit("Hi", replace(params, stop=()))
    bench.run()
    whole = _text(free)
    assert "abba" in whole
    assert _text(stopped) == whole.partition("abba")[0]
    assert _reason(stopped) is FinishReason.STOP


def test_cancel_frees_within_one_step(bench: Bench) -> None:
    leaves, stays = (bench.submit("Hi", _seeded(index)) for index in range(2))
    bench.runner.step()
    assert bench.runner.cancel(leaves.request_id)
    bench.runner.step()
    assert [sequence.request_id for sequence in bench.runner.requests()] == [stays.request_id]
    assert (_reason(leaves), leaves._cache) == (FinishReason.CANCELLED, None)
    assert not bench.runner.cancel(leaves.request_id)
    assert leaves.num_output_tokens == 1


def test_cancel_in_the_queue_and_before_the_first_step(tiny: LoadedModel) -> None:
    bench = Bench(tiny, replace(_LIMITS, max_running=1))
    sequences = [bench.submit("Hi", _seeded(index)) for index in range(3)]
    assert bench.runner.cancel(sequences[2].request_id)
    bench.runner.step()
    sequences[1].stream.close()
    bench.runner.step()
    assert [_reason(sequence) for sequence in sequences] == [None, FinishReason.CANCELLED, FinishReason.CANCELLED]
    assert sequences[1].timing.scheduled_s is None


def test_cancel_during_a_long_prompt(bench: Bench) -> None:
    sequence = bench.submit(_LONG)
    bench.runner.step()
    assert (sequence.num_computed, sequence.num_output_tokens) == (32, 0)
    sequence.stream.close()
    assert not bench.runner.step()
    assert _reason(sequence) is FinishReason.CANCELLED


def test_nothing_is_freed_but_what_was_cancelled(tiny: LoadedModel) -> None:
    bench = Bench(tiny, replace(_LIMITS, max_running=1))
    first, second = (bench.submit("Hi", _seeded(index)) for index in range(2))
    bench.runner.step()
    bench.runner.cancel(first.request_id)
    bench.run()
    assert _reason(second) is FinishReason.LENGTH


def test_cancelling_what_is_not_there(bench: Bench) -> None:
    assert bench.runner.cancel("req-unknown") is False


def test_deadline_while_running(bench: Bench) -> None:
    late, patient = bench.submit("Hi", _seeded(1), timeout_s=5), bench.submit("Hi", _seeded(2), timeout_s=50)
    bench.runner.step()
    bench.clock.advance(5)
    bench.runner.step()
    assert (_reason(late), _reason(patient)) == (FinishReason.DEADLINE, None)
    assert late.stream.finished is not None
    assert late.stream.finished.error == "the request did not finish within 5 s"
    bench.run()
    assert _reason(patient) is FinishReason.LENGTH


def test_deadline_in_the_queue(tiny: LoadedModel) -> None:
    bench = Bench(tiny, replace(_LIMITS, max_running=1))
    bench.submit("Hi", _seeded(1))
    waits = bench.submit("Hi", _seeded(2), timeout_s=5)
    bench.runner.step()
    bench.clock.advance(6)
    bench.runner.step()
    assert _reason(waits) is FinishReason.DEADLINE
    assert waits.timing.scheduled_s is None


def test_times_are_in_order(tiny: LoadedModel) -> None:
    bench = Bench(tiny, clock=SystemClock())
    bench.submit(_LONG)
    bench.run()
    timing = bench.ended[0].timing
    moments = [timing.received_s, timing.scheduled_s, timing.first_token_s, timing.last_token_s, timing.finished_s]
    assert None not in moments
    assert moments == sorted(moments, key=lambda moment: moment or 0.0)


def test_queue_is_bounded(tiny: LoadedModel) -> None:
    bench = Bench(tiny, replace(_LIMITS, max_running=1, max_waiting=1))
    bench.submit()
    bench.submit()
    with pytest.raises(QueueFullError, match="at most 1 may; try again later or raise CONSOLE_MAX_WAITING"):
        bench.submit()
    with pytest.raises(QueueFullError):
        bench.runner.check_room()
    bench.runner.step()
    with pytest.raises(QueueFullError):
        bench.submit()
    bench.run()
    bench.submit()


def test_prompts_in_the_queue_are_bounded_by_their_tokens(tiny: LoadedModel) -> None:
    bench = Bench(tiny, replace(_LIMITS, max_running=1, max_waiting_tokens=500))
    num_tokens = bench.submit(_LONG).num_prompt_tokens
    bench.submit(_LONG)
    with pytest.raises(QueueFullError, match="more than the 500 that may; try again later or raise CONSOLE_MAX_WAITI"):
        bench.submit(_LONG * 2)
    assert bench.runner.stats().num_waiting_tokens == 2 * num_tokens
    bench.run()
    assert (bench.runner.stats().num_waiting_tokens, bench.runner.stats().num_waiting) == (0, 0)
    bench.submit(_LONG * 4)


def test_a_full_queue_says_when_it_moves(tiny: LoadedModel) -> None:
    bench = Bench(tiny, replace(_LIMITS, max_running=1, max_waiting=1))
    for _ in range(2):
        bench.submit("Hi", _seeded(1))
    bench.runner.step()
    bench.clock.advance(7)
    with pytest.raises(QueueFullError) as refusal:
        bench.submit()
    assert refusal.value.retry_after_s == 7.0


def test_what_does_not_start_in_time_ends(tiny: LoadedModel) -> None:
    bench = Bench(tiny, replace(_LIMITS, max_running=1, queue_timeout_s=5.0))
    runs, waits = bench.submit("Hi", _seeded(1)), bench.submit("Hi", _seeded(2))
    hurried = bench.submit("Hi", _seeded(3), max_queue_s=2.0)
    bench.runner.step()
    bench.clock.advance(2)
    bench.runner.step()
    assert [_reason(one) for one in (runs, waits, hurried)] == [None, None, FinishReason.QUEUE_TIMEOUT]
    bench.clock.advance(3)
    bench.runner.step()
    finished = waits.stream.finished
    assert finished is not None
    assert finished.error == "the request did not start within 5 s: send it again when tiny is less busy"
    failure = finished.failure()
    assert isinstance(failure, QueueTimeoutError)
    assert failure.retry_after_s == 5.0
    bench.run()
    assert _reason(runs) is FinishReason.LENGTH


def test_higher_priorities_start_first(tiny: LoadedModel) -> None:
    bench = Bench(tiny, replace(_LIMITS, max_running=1))
    short = replace(_seeded(1), max_tokens=2)
    order = {bench.submit("Hi", short, priority=priority).request_id: priority for priority in (0, -1, 2, 1)}
    bench.run()
    assert [order[finished.request_id] for finished in bench.ended] == [2, 1, 0, -1]


def test_keys_take_turns(tiny: LoadedModel) -> None:
    """Four of one key came first; the first of the other key starts as soon as a place is free."""
    bench = Bench(tiny, replace(_LIMITS, max_running=1))
    short = replace(_seeded(1), max_tokens=5)
    keys = {bench.submit("Hi", short, key_id="loud").request_id: "loud" for _ in range(4)}
    bench.runner.step()
    keys |= {bench.submit("Hi", short, key_id="quiet").request_id: "quiet" for _ in range(2)}
    bench.run()
    assert [keys[finished.request_id] for finished in bench.ended] == ["loud", "quiet"] * 2 + ["loud"] * 2


def test_turns_do_not_change_an_answer(tiny: LoadedModel) -> None:
    alone = _answer(_ask_all(Bench(tiny), [(_LONG, _seeded(7))], [0])[0])
    bench = Bench(tiny, replace(_LIMITS, max_running=2))
    sequences = [bench.submit(_LONG, _seeded(7 + index), key_id=f"k{index % 2}", priority=index) for index in range(5)]
    bench.run()
    assert _answer(sequences[0]) == alone


def test_gaps_between_tokens_are_counted(bench: Bench) -> None:
    bench.submit("Hi", replace(_seeded(1), max_tokens=5))
    bench.runner.step()
    gaps = bench.runner.token_gaps = Histogram(GAP_BOUNDS_S)
    for _ in range(3):
        bench.clock.advance(0.3)
        bench.runner.step()
    reading = gaps.read()
    assert sum(reading.counts) == 3
    assert reading.total == pytest.approx(0.9)


def test_an_answer_that_nobody_reads_is_cancelled(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.inference.outputs.MAX_UNREAD_TOKENS", 10)
    sequence = bench.submit("Hi", replace(_seeded(1), max_tokens=50))
    bench.run()
    finished = sequence.stream.finished
    assert finished is not None
    assert (finished.reason, finished.num_output_tokens) == (FinishReason.CANCELLED, 11)
    assert finished.error == "10 tokens were left unread: read the answer faster, or ask for a shorter one"


def test_no_queue_at_all(tiny: LoadedModel) -> None:
    bench = Bench(tiny, replace(_LIMITS, max_running=1, max_waiting=0))
    bench.submit()
    with pytest.raises(QueueFullError):
        bench.submit()


def test_an_id_that_runs_already_is_refused(bench: Bench) -> None:
    sequence = bench.submit()
    with pytest.raises(InvalidRequestError, match="is running already") as refusal:
        bench.runner.submit(sequence)
    assert refusal.value.param == "request_id"
    bench.runner.step()
    with pytest.raises(InvalidRequestError):
        bench.runner.submit(sequence)
    bench.run()
    assert _reason(sequence) is not None


def test_requests_start_in_order_of_arrival(tiny: LoadedModel) -> None:
    bench = Bench(tiny, replace(_LIMITS, max_running=2))
    for index in range(6):
        bench.submit("Hi", replace(_seeded(index), max_tokens=3))
    bench.run()
    started = [finished.request_id for finished in bench.ended]
    assert started == sorted(started, key=lambda name: int(name[1:]))


def test_cache_budget_holds_back_the_next(tiny: LoadedModel) -> None:
    bench = Bench(tiny, replace(_LIMITS, cache_tokens=200))
    first, second = (bench.submit("Hi", replace(_seeded(index), max_tokens=100)) for index in range(2))
    bench.runner.step()
    stats = bench.runner.stats()
    assert (stats.num_running, stats.num_waiting) == (1, 1)
    assert stats.held_back is not None
    assert "tokens of cache are needed" in stats.held_back
    assert stats.cache_tokens_reserved <= stats.cache_tokens_total == 200
    bench.run()
    assert [_reason(sequence) for sequence in (first, second)] == [FinishReason.LENGTH] * 2


def test_a_prompt_does_not_hold_up_those_who_write(bench: Bench) -> None:
    writes = bench.submit("Hi", _seeded(1))
    while writes.num_output_tokens == 0:
        bench.runner.step()
    bench.submit(_LONG)
    before = writes.num_output_tokens
    for step in range(1, 4):
        bench.runner.step()
        assert writes.num_output_tokens == before + step


def test_an_answer_longer_than_its_first_cache(bench: Bench) -> None:
    params = SamplingParams(temperature=0.0, max_tokens=400, logit_bias={257: -100.0})
    sequence = bench.submit("Hi", params)
    bench.run()
    produced = [token.token_id for token in _tokens(sequence)]
    assert len(produced) == 400


def test_logits_that_are_not_finite_end_only_their_request(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    good, bad = bench.submit("Hi", _seeded(1)), bench.submit("Hi", _seeded(2))
    real = bench.runner._compute.logits

    def poisoned(parts: Any, chosen: Any = None) -> Any:
        logits = real(parts, chosen).clone()
        for index, part in enumerate(part for part in parts if part.num_logits):
            if part.cache is bad._cache:
                logits[index] = float("nan")
        return logits

    monkeypatch.setattr(bench.runner._compute, "logits", poisoned)
    bench.run()
    assert (_reason(good), _reason(bad)) == (FinishReason.LENGTH, FinishReason.ERROR)
    assert bad.stream.finished is not None
    assert "not finite" in str(bad.stream.finished.error)


class Ahead(Packed):
    """Handed the next step before the tokens of the last are known, as a GPU is; counts the tokens it was not told."""

    num_unknown = 0

    @property
    def runs_ahead(self) -> bool:
        return True

    def logits(self, parts: Any, chosen: torch.Tensor | None = None) -> torch.Tensor:
        self.num_unknown += sum(not part.is_known for part in parts)
        return super().logits(parts, chosen)


@pytest.fixture
def ahead(tiny: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setattr("engine.inference.runner.forward_of_requests", lambda loaded, _limits: Ahead(loaded))
    return Bench(tiny)


def test_a_step_ahead_gives_the_same_answers(bench: Bench, ahead: Bench) -> None:
    """Requests join, end by length, by a stop string and by the end token, and write log-probabilities."""
    greedy = replace(_GREEDY, max_tokens=30)
    questions = [
        ("Hi", greedy),
        (_LONG, replace(greedy, max_tokens=7, top_logprobs=2)),
        ("What?", replace(greedy, max_tokens=1)),
        ("Hi there", replace(greedy, stop=("e",), max_tokens=200)),
        (_LONG[:50], replace(greedy, logit_bias={257: 3.0})),
        ("Yes", replace(greedy, max_tokens=2)),
    ]
    joins = (0, 3, 1, 0, 4, 2)
    expected, found = (_ask_all(each, questions, joins) for each in (bench, ahead))
    for one, other in zip(expected, found, strict=True):
        assert other.token_ids == one.token_ids
        assert _reason(other) == _reason(one)
        assert _text(other) == _text(one)
    assert ahead.runner._compute.num_unknown > 40  # type: ignore[attr-defined]
    assert not ahead.runner.step()


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 60), st.integers(1, 12), st.integers(0, 3)), min_size=1, max_size=7))
def test_a_step_ahead_gives_the_same_answers_in_any_company(
    tiny: LoadedModel, lots: list[tuple[int, int, int]]
) -> None:
    benches = Bench(tiny), Bench(tiny)
    benches[1].runner._compute = Ahead(tiny)
    questions = [(_LONG[:size], replace(_GREEDY, max_tokens=num)) for size, num, _ in lots]
    expected, found = (_ask_all(each, questions, [pause for *_, pause in lots]) for each in benches)
    assert [one.token_ids for one in found] == [one.token_ids for one in expected]


def test_what_needs_the_last_token_is_not_run_ahead(bench: Bench, ahead: Bench) -> None:
    """Penalties look at every token before; the others go ahead again once the one that has them is done."""
    questions = [
        ("Hi", replace(_GREEDY, max_tokens=40)),
        ("Hi", replace(_GREEDY, max_tokens=20, frequency_penalty=1.5, repetition_penalty=1.2)),
    ]
    expected, found = (_ask_all(each, questions, (0, 2)) for each in (bench, ahead))
    assert [one.token_ids for one in found] == [one.token_ids for one in expected]
    assert 15 <= ahead.runner._compute.num_unknown <= 25  # type: ignore[attr-defined]
    assert ahead.runner.stats().num_held_up == {"penalties": 1}
    assert bench.runner.stats().num_held_up == {}


def test_a_request_that_is_cancelled_while_its_token_is_under_way(ahead: Bench) -> None:
    stays, leaves = ahead.submit("Hi"), ahead.submit("Ho")
    for _ in range(4):
        ahead.runner.step()
    written = leaves.num_output_tokens
    assert ahead.runner.cancel(leaves.request_id)
    ahead.runner.step()
    assert _reason(leaves) is FinishReason.CANCELLED
    assert leaves._cache is None
    ahead.run()
    assert leaves.num_output_tokens == written
    assert (stays.num_output_tokens, _reason(stays)) == (24, FinishReason.LENGTH)


def test_a_step_without_memory_ends_the_largest_request_only(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the limits let in is too much for the device: the worker lives on."""
    real = bench.runner._compute.logits

    def full(parts: Any, chosen: Any = None) -> Any:
        if sum(len(part.token_ids) for part in parts) > 32:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(parts, chosen)

    monkeypatch.setattr(bench.runner._compute, "logits", full)
    small = bench.submit("Hi")
    bench.runner.step()
    large = bench.submit(_LONG)
    bench.run()
    assert (_reason(small), small.num_output_tokens) == (FinishReason.LENGTH, 24)
    assert _reason(large) is FinishReason.ERROR
    assert large.stream.finished is not None
    assert "no memory left for a step with" in str(large.stream.finished.error)
    assert "CONSOLE_CHUNK_TOKENS" in str(large.stream.finished.error)


def test_a_step_without_memory_first_lets_go_of_kept_beginnings(tiny: LoadedModel) -> None:
    ended: list[Finished] = []
    clock = FakeClock()
    prefixes = PrefixLimits(4_000, _LIMITS.chunk_tokens, across_keys=True)
    bench = Bench(tiny)
    bench.runner = Runner(tiny, _LIMITS, clock, lambda _sequence, finished: ended.append(finished), prefixes)
    bench.submit(_LONG)
    bench.run()
    kept = bench.runner.stats().prefixes
    assert kept is not None
    assert kept.num_kept_tokens > 0
    real, fails = bench.runner._compute.logits, iter([True])

    def full_once(parts: Any, chosen: Any = None) -> Any:
        if next(fails, False):
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(parts, chosen)

    bench.runner._compute.logits = full_once  # type: ignore[method-assign]
    second = bench.submit("Another")
    bench.runner.step()
    after = bench.runner.stats().prefixes
    assert after is not None
    assert after.num_kept_tokens == 0
    bench.run()
    assert _reason(second) is FinishReason.LENGTH


def test_a_step_without_memory_ends_all_that_cannot_be_run_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a pass changes a state, nobody knows what it is after half a step."""
    monkeypatch.setattr(type(bench.runner._compute), "can_repeat", False)
    both = [bench.submit("Hi"), bench.submit("Ho")]
    bench.runner.step()

    def full(parts: Any, chosen: Any = None) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(bench.runner._compute, "logits", full)
    bench.run()
    assert [_reason(one) for one in both] == [FinishReason.ERROR] * 2


def test_a_step_that_is_run_again_draws_what_it_drew_before(tiny: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is memory for the pass and none for the choice, once."""
    answers = []
    for fails in (iter(()), iter([False, False, True])):
        bench = Bench(tiny)
        bench.runner._prefixes.clear = lambda: True  # type: ignore[method-assign]

        def choose_once(sequences: Any, logits: Any, *, is_batched: bool, fails: Any = fails) -> Any:
            chosen = choose(sequences, logits, is_batched=is_batched)
            if next(fails, False):
                raise torch.OutOfMemoryError("CUDA out of memory")
            return chosen

        monkeypatch.setattr("engine.inference.runner.choose", choose_once)
        sequence = bench.submit("Hi", _seeded(7))
        bench.run()
        answers.append(sequence.token_ids)
    assert answers[0] == answers[1]


def test_close_cancels_or_fails_what_is_here(tiny: LoadedModel) -> None:
    for error, reason in ((None, FinishReason.CANCELLED), ("the worker died", FinishReason.ERROR)):
        bench = Bench(tiny, replace(_LIMITS, max_running=1))
        sequences = [bench.submit("Hi", _seeded(index)) for index in range(3)]
        bench.runner.step()
        bench.runner.close(error)
        assert [_reason(sequence) for sequence in sequences] == [reason] * 3
        assert {finished.error for finished in bench.ended} == {error}
        assert bench.runner.requests() == []
        with pytest.raises(InstanceNotReadyError, match="tiny has stopped"):
            bench.submit()


def test_refuse_ends_the_wait(bench: Bench) -> None:
    bench.runner.refuse()
    bench.runner.wait(60)
    with pytest.raises(InstanceNotReadyError):
        bench.submit()


def test_an_arrival_ends_the_wait(bench: Bench) -> None:
    bench.submit()
    bench.runner.wait(60)


def test_idle_step_says_so(bench: Bench) -> None:
    assert bench.runner.step() is False
    assert bench.runner.stats().num_steps == 0


@pytest.mark.model
def test_greedy_equals_generate_on_the_sample_model(sample_loaded: LoadedModel) -> None:
    bench = Bench(sample_loaded)
    prompt = "What is the capital of France?"
    other = bench.submit("Count to ten.", replace(_GREEDY, max_tokens=6))
    sequence = bench.submit(prompt)
    bench.run()
    produced = [token.token_id for token in _tokens(sequence)]
    assert "Paris" in sample_loaded.tokenizer.decode(produced)
    assert _reason(other) is FinishReason.LENGTH
    expected = _generate(sample_loaded, prompt, 24)
    assert produced == expected


@pytest.mark.model
def test_same_bits_on_the_sample_model(sample_loaded: LoadedModel) -> None:
    params = SamplingParams(temperature=1.0, top_p=0.95, seed=4, max_tokens=10, top_logprobs=1)
    questions = [("Tell me a story about a fox. " * 8, params), ("Why is the sky blue?", params), ("Hi", params)]
    alone = _answer(_ask_all(Bench(sample_loaded), [questions[1]], [0])[0])
    together = _ask_all(Bench(sample_loaded), questions, [0, 2, 2])
    assert _answer(together[1]) == alone
