from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from engine.inference.attention import CacheShape, SequenceCache
from engine.inference.calls import CallReader
from engine.inference.calls.formats import HERMES
from engine.inference.request import Delta, Finished, FinishReason, Message, Request, SamplingParams, Timing, TokenInfo
from engine.inference.sequence import Sequence
from engine.inference.structured import Grammar, Matcher, Vocabulary
from engine.inference.text import Detokenizer
from engine.inference.tools import join_pieces
from tests.fakes import byte_tokenizer

_TOKENIZER = byte_tokenizer()
_SHAPE = CacheShape(1, 1, 4, torch.float32, torch.device("cpu"))
_FORWARD: Any = SimpleNamespace(new_cache=lambda num_tokens, _most: SequenceCache(_SHAPE, num_tokens))
_PROMPT = [5, 9, 5]


def _sequence(
    sampling: SamplingParams | None = None,
    max_tokens: int = 4,
    matcher: Matcher | None = None,
    reader: CallReader | None = None,
) -> Sequence:
    sampling = sampling or SamplingParams()
    request = Request("m", (Message("user", "Hi"),), sampling)
    detokenizer = Detokenizer(_TOKENIZER._tokenizer, sampling.stop)
    return Sequence(request, _PROMPT, max_tokens, 60.0, Timing(1_000.0, 0.0), detokenizer, matcher, reader)


def _token(text: str) -> TokenInfo:
    (token_id,) = _TOKENIZER(text, add_special_tokens=False)["input_ids"]
    return TokenInfo(token_id, text)


def test_load_reserves_prompt_and_longest_answer() -> None:
    load = _sequence(max_tokens=7).load()
    assert (load.reserved_tokens, load.num_computed, load.num_tokens) == (10, 0, 3)


def test_append_counts_and_times() -> None:
    sequence = _sequence()
    assert sequence.append(_token("a"), 1.0, is_end=False) is None
    assert sequence.append(_token("b"), 2.0, is_end=False) is None
    assert (sequence.num_output_tokens, sequence.num_prompt_tokens) == (2, 3)
    assert (sequence.timing.first_token_s, sequence.timing.last_token_s) == (1.0, 2.0)
    assert sequence.output_counts == {_token("a").token_id: 1, _token("b").token_id: 1}


def test_the_last_allowed_token_ends_the_answer() -> None:
    sequence = _sequence(max_tokens=2)
    assert sequence.append(_token("a"), 1.0, is_end=False) is None
    assert sequence.append(_token("b"), 1.0, is_end=False) is FinishReason.LENGTH


def test_the_end_token_has_no_text() -> None:
    sequence = _sequence()
    end = TokenInfo(_TOKENIZER.eos_token_id, "<|im_end|>")
    assert sequence.append(end, 1.0, is_end=True) is FinishReason.STOP
    assert sequence.stream.poll() == [Delta("", (end,))]


def test_a_stop_string_ends_the_answer_before_it() -> None:
    sequence = _sequence(SamplingParams(stop=("bc",)), max_tokens=9)
    reasons = [sequence.append(_token(letter), 1.0, is_end=False) for letter in "abc"]
    assert reasons == [None, None, FinishReason.STOP]
    sequence.finish(FinishReason.STOP, 2.0)
    text = "".join(event.text for event in sequence.stream.poll() if isinstance(event, Delta))
    assert text == "a"


def test_finish_gives_what_was_held_back_and_frees_the_cache() -> None:
    sequence = _sequence(SamplingParams(stop=("bc",), seed=7), max_tokens=2)
    sequence.cache_for(_FORWARD, 3)
    sequence.start(0.5)
    for letter in "ab":
        sequence.append(_token(letter), 1.0, is_end=False)
    finished = sequence.finish(FinishReason.LENGTH, 2.0)
    assert sequence._cache is None
    events = sequence.stream.poll()
    assert events[-2:] == [Delta("b"), finished]
    assert finished == Finished(
        sequence.request_id, FinishReason.LENGTH, 3, 2, 7, Timing(1_000.0, 0.0, 0.5, 1.0, 1.0, 2.0)
    )


def test_the_stream_ends_also_where_what_was_held_back_cannot_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that died in the detokenizer must not leave its readers waiting."""

    def fail(_: Detokenizer) -> str:
        raise OverflowError("a fault of the tokenizer")

    monkeypatch.setattr(Detokenizer, "flush", fail)
    sequence = _sequence()
    sequence.finish(FinishReason.ERROR, 9.0, "the worker died")
    assert sequence.stream.finished is not None
    assert sequence.stream.finished.error == "the worker died"


def test_the_same_seed_draws_the_same_numbers() -> None:
    first, second = (_sequence(SamplingParams(seed=11)) for _ in range(2))
    assert [first.uniform() for _ in range(5)] == [second.uniform() for _ in range(5)]


def test_without_a_seed_one_is_drawn_and_reported() -> None:
    sequences = [_sequence() for _ in range(4)]
    assert len({sequence.seed for sequence in sequences}) > 1
    assert sequences[0].finish(FinishReason.STOP, 1.0).seed == sequences[0].seed


def test_closing_the_stream_marks_it_cancelled() -> None:
    sequence = _sequence()
    sequence.stream.close()
    assert sequence.is_cancelled


def test_prompt_set_is_empty_unless_it_is_needed() -> None:
    cpu = torch.device("cpu")
    assert _sequence().prompt_set(cpu).tolist() == []
    assert _sequence(SamplingParams(repetition_penalty=1.2)).prompt_set(cpu).tolist() == [5, 9]


@pytest.mark.parametrize("length", [3, 64, 65, 1_000])
def test_the_cache_has_room(length: int) -> None:
    assert _sequence(max_tokens=2_000).cache_for(_FORWARD, length).capacity >= length


def _spell(sequence: Sequence, text: str) -> list[FinishReason | None]:
    return [sequence.append(_token(letter), 1.0, is_end=False) for letter in text]


def test_an_answer_ends_with_its_grammar() -> None:
    matcher = Vocabulary(_TOKENIZER, 258, [257]).compile(Grammar('start: "ab"', ()))
    sequence = _sequence(max_tokens=2, matcher=matcher)
    allowed = sequence.allowed()
    assert allowed is not None
    assert allowed.nonzero().flatten().tolist() == [_token("a").token_id]
    assert _spell(sequence, "ab") == [None, FinishReason.STOP]
    assert _sequence().allowed() is None


_CALL = '<tool_call>\n{"name": "add", "arguments": {"x": 1}}\n</tool_call>'


def test_calls_are_taken_out_of_the_text() -> None:
    sequence = _sequence(max_tokens=500, reader=CallReader(HERMES, ["add"]))
    assert set(_spell(sequence, f"So:\n{_CALL}")) == {None}
    sequence.finish(FinishReason.STOP, 2.0)
    deltas = [event for event in sequence.stream.poll() if isinstance(event, Delta)]
    (call,) = join_pieces(piece for delta in deltas for piece in delta.calls)
    assert (call.name, call.parsed()) == ("add", {"x": 1})
    assert "".join(delta.text for delta in deltas) == "So:"


def test_the_last_call_allowed_ends_the_answer() -> None:
    sequence = _sequence(max_tokens=500, reader=CallReader(HERMES, ["add"], max_calls=1))
    assert _spell(sequence, _CALL.partition("}}")[0] + "}}")[-2:] == [None, FinishReason.STOP]


def test_half_a_call_is_content_in_the_end() -> None:
    sequence = _sequence(SamplingParams(stop=("zz",)), max_tokens=500, reader=CallReader(HERMES, ["add"]))
    _spell(sequence, "<tool_call>z")
    assert not any(event.text for event in sequence.stream.poll() if isinstance(event, Delta))
    sequence.finish(FinishReason.LENGTH, 2.0)
    assert sequence.stream.poll()[0] == Delta("<tool_call>z")
