from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

from engine.inference.text import Detokenizer, StopStrings, token_bytes, token_text
from tests.fakes import byte_tokenizer

_TOKENIZER = byte_tokenizer()
_WORDS = ("<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "▁the", "a", "b", "é", "▁a")


def _byte_fallback_tokenizer() -> Tokenizer:
    """As Llama 2, Mistral and Gemma have it: words with ▁ for a blank, and one token a byte for the rest."""
    vocab = {word: index for index, word in enumerate(_WORDS)}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[], byte_fallback=True, unk_token="<unk>"))
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return tokenizer


_FALLBACK = _byte_fallback_tokenizer()
_FALLBACK_SIZE = len(_WORDS)


def _ids(text: str) -> list[int]:
    return [int(token_id) for token_id in _TOKENIZER(text, add_special_tokens=False)["input_ids"]]


def _feed_all(detokenizer: Detokenizer, ids: list[int]) -> list[str]:
    return [detokenizer.feed(token_id) for token_id in ids]


def _split(text: str, cuts: list[int]) -> list[str]:
    borders = sorted({0, len(text), *(cut % (len(text) + 1) for cut in cuts)})
    return [text[start:stop] for start, stop in pairwise(borders)]


@given(
    text=st.text("abc", max_size=30),
    stops=st.lists(st.text("abc", min_size=1, max_size=5), max_size=4),
    cuts=st.lists(st.integers(0, 30), max_size=12),
)
def test_any_split_gives_the_text_before_the_earliest_stop(text: str, stops: list[str], cuts: list[int]) -> None:
    found = [(at + len(stop), at) for stop in stops if (at := text.find(stop)) >= 0]
    machine = StopStrings(stops)
    given_out = "".join(machine.feed(piece) for piece in _split(text, cuts))
    assert given_out + machine.flush() == (text[: min(found)[1]] if found else text)
    assert machine.is_hit == bool(found)


@given(text=st.text("ab.", max_size=30), stop=st.text("ab.", min_size=1, max_size=5), cuts=st.lists(st.integers(0, 30)))
def test_one_stop_over_any_split(text: str, stop: str, cuts: list[int]) -> None:
    machine = StopStrings([stop])
    given_out = "".join(machine.feed(piece) for piece in _split(text, cuts))
    assert given_out + machine.flush() == text.partition(stop)[0]
    assert machine.is_hit == (stop in text)


def test_only_a_possible_beginning_is_held_back() -> None:
    machine = StopStrings(["END"])
    assert machine.feed("one E") == "one "
    assert machine.feed("N") == ""
    assert machine.feed("O two") == "ENO two"


def test_nothing_comes_after_a_hit() -> None:
    machine = StopStrings(["\n\n"])
    assert machine.feed("a\n\nb") == "a"
    assert machine.feed("c") == ""
    assert machine.flush() == ""


def test_earliest_of_several_stops_in_one_piece() -> None:
    assert StopStrings(["two", "one"]).feed("zero one two") == "zero "


@pytest.mark.parametrize("pieces", [["abc"], ["ab", "c"], ["a", "b", "c"]])
def test_the_stop_that_is_complete_first_counts(pieces: list[str]) -> None:
    machine = StopStrings(["abc", "b"])
    assert "".join(machine.feed(piece) for piece in pieces) == "a"


@given(text=st.text(max_size=20))
def test_characters_come_out_whole(text: str) -> None:
    detokenizer = Detokenizer(_TOKENIZER._tokenizer, ())
    pieces = [*_feed_all(detokenizer, _ids(text)), detokenizer.flush()]
    assert "".join(pieces) == text.rstrip("\ufffd") or "\ufffd" in text
    assert all("\ufffd" not in piece for piece in pieces) or "\ufffd" in text


def test_a_character_over_several_tokens_waits_for_its_last() -> None:
    assert _feed_all(Detokenizer(_TOKENIZER._tokenizer, ()), _ids("a€😀")) == ["a", "", "", "€", "", "", "", "😀"]


def test_stop_string_across_token_borders() -> None:
    detokenizer = Detokenizer(_TOKENIZER._tokenizer, ("stop€",))
    assert "".join(_feed_all(detokenizer, _ids("do not stop€ now"))) == "do not "
    assert detokenizer.is_stopped
    assert detokenizer.flush() == ""


def test_flush_gives_what_may_have_become_a_stop() -> None:
    detokenizer = Detokenizer(_TOKENIZER._tokenizer, ("stop",))
    assert "".join(_feed_all(detokenizer, _ids("do sto"))) == "do "
    assert detokenizer.flush() == "sto"


def test_flush_leaves_half_a_character_out() -> None:
    detokenizer = Detokenizer(_TOKENIZER._tokenizer, ())
    assert _feed_all(detokenizer, _ids("é")[:1]) == [""]
    assert detokenizer.flush() == ""


def test_special_tokens_have_no_text() -> None:
    detokenizer = Detokenizer(_TOKENIZER._tokenizer, ())
    assert _feed_all(detokenizer, [*_ids("a"), _TOKENIZER.eos_token_id, *_ids("b")]) == ["a", "", "b"]


def test_bytes_that_are_no_text_do_not_wait_for_ever() -> None:
    lone_byte = _ids("é")[0]
    detokenizer = Detokenizer(_TOKENIZER._tokenizer, ())
    text = "".join(_feed_all(detokenizer, [lone_byte] * 100))
    assert len(text) > 80
    assert set(text) == {"\ufffd"}


@given(ids=st.lists(st.integers(0, 257), max_size=40))
def test_no_sequence_of_bytes_is_an_error(ids: list[int]) -> None:
    detokenizer = Detokenizer(_TOKENIZER._tokenizer, ())
    given_out = "".join(_feed_all(detokenizer, ids)) + detokenizer.flush()
    assert given_out == _TOKENIZER.decode(ids, skip_special_tokens=True).rstrip("\ufffd") or len(ids) > 15


@given(ids=st.lists(st.integers(1, _FALLBACK_SIZE - 1), max_size=40))
def test_no_sequence_of_byte_fallback_tokens_is_an_error(ids: list[int]) -> None:
    """tokenizers' own DecodeStream raises here, where a later byte makes an earlier one invalid."""
    detokenizer = Detokenizer(_FALLBACK, ())
    _feed_all(detokenizer, ids)
    detokenizer.flush()


@given(text=st.text("aäb€ 😀", max_size=20), num_cut=st.integers(0, 3))
def test_byte_fallback_gives_the_text_and_no_half_character(text: str, num_cut: int) -> None:
    units = [[letter] if letter in "ab" else [f"<0x{byte:02X}>" for byte in letter.encode()] for letter in text]
    ids: list[Any] = [_FALLBACK.token_to_id(unit) for units_of_one in units for unit in units_of_one]
    whole = _FALLBACK.decode(ids)
    ids = ids[: len(ids) - num_cut]
    detokenizer = Detokenizer(_FALLBACK, ())
    given_out = "".join(_feed_all(detokenizer, ids)) + detokenizer.flush()
    assert whole.startswith(given_out)
    assert len(given_out) >= len(whole) - num_cut


@pytest.mark.parametrize("words", [("▁the", "▁a", "b"), ("a", "▁the", "é"), ("<0xC3>", "<0xA9>", "▁the", "<0x21>")])
def test_blanks_between_words_are_those_of_the_whole_text(words: tuple[str, ...]) -> None:
    ids: list[Any] = [_FALLBACK.token_to_id(word) for word in words]
    detokenizer = Detokenizer(_FALLBACK, ())
    assert "".join(_feed_all(detokenizer, ids)) == _FALLBACK.decode(ids)


def test_special_tokens_that_are_marks_are_shown() -> None:
    detokenizer = Detokenizer(_TOKENIZER._tokenizer, (), {256: "[CALLS]"})
    half = _ids("é")[:1]
    pieces = _feed_all(detokenizer, [*_ids("a"), *half, 256, 257, *_ids("é")])
    assert "".join(pieces) + detokenizer.flush() == "a[CALLS]é"


def test_a_mark_can_be_in_a_stop_string() -> None:
    detokenizer = Detokenizer(_TOKENIZER._tokenizer, ("[C",), {256: "[CALLS]"})
    assert "".join(_feed_all(detokenizer, [*_ids("a"), 256])) == "a"
    assert detokenizer.is_stopped


@pytest.mark.parametrize("byte", range(256))
def test_every_byte_is_told(byte: int) -> None:
    (token_id,) = (index for index in range(256) if token_bytes(token_text(_TOKENIZER, index)) == bytes([byte]))
    text = token_text(_TOKENIZER, token_id)
    assert text == (chr(byte) if byte < 128 else f"bytes:\\x{byte:02x}")


def test_byte_tokens_of_sentencepiece_are_told() -> None:
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=_FALLBACK)
    half: Any = _FALLBACK.token_to_id("<0xC3>")
    whole: Any = _FALLBACK.token_to_id("é")
    assert (token_text(tokenizer, half), token_bytes("bytes:\\xc3")) == ("bytes:\\xc3", b"\xc3")
    assert token_bytes(token_text(tokenizer, whole)) == "é".encode()


@given(st.text())
def test_other_text_has_its_own_bytes(text: str) -> None:
    assert token_bytes(text) == text.encode() or text.startswith("bytes:")
