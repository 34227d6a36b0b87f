from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.inference.calls.formats import HERMES, LLAMA, MISTRAL, CallFormat
from engine.inference.calls.reader import CallReader
from engine.inference.tools import CallPiece, join_pieces

_NAMES = ("get_weather", "add")
_WEATHER = '{"name": "get_weather", "arguments": {"city": "Z\\u00fcrich}", "days": [1, 2]}}'
_ADD = '{"name": "add", "arguments": {}}'
_ARGUMENTS = '{"city": "Zürich}", "days": [1, 2]}'


def _read(
    call_format: CallFormat, parts: list[str], **options: Any
) -> tuple[str, list[tuple[str, str]], list[CallPiece]]:
    """Content and calls, with the pieces that they came in."""
    reader = CallReader(call_format, _NAMES, **options)
    text, pieces = "", []
    for part in parts:
        read = reader.feed(part)
        text += read.text
        pieces += read.pieces
    text += reader.flush()
    return text, [(call.name, call.arguments) for call in join_pieces(pieces)], pieces


def _calls(call_format: CallFormat, text: str, **options: Any) -> tuple[str, list[tuple[str, str]]]:
    content, calls, _ = _read(call_format, [text], **options)
    return content, calls


_HERMES = f"I look.\n<tool_call>\n{_WEATHER}\n</tool_call>\n<tool_call>\n{_ADD}\n</tool_call>"
_MISTRAL = f"[TOOL_CALLS] [{_WEATHER}, {_ADD}]"
_LLAMA = _WEATHER.replace("arguments", "parameters")


@pytest.mark.parametrize(
    ("call_format", "text", "content", "names"),
    [
        (HERMES, _HERMES, "I look.", ["get_weather", "add"]),
        (HERMES, f"<tool_call>{_ADD}</tool_call> Done.", " Done.", ["add"]),
        (HERMES, f"<tool_call>\n{_ADD}", "", ["add"]),
        (HERMES, f"<tool_call>\n{_ADD}<tool_call>{_ADD}</tool_call>", "", ["add", "add"]),
        (MISTRAL, _MISTRAL, "", ["get_weather", "add"]),
        (MISTRAL, f"Yes.[TOOL_CALLS][{_ADD}]", "Yes.", ["add"]),
        (LLAMA, _LLAMA, "", ["get_weather"]),
        (LLAMA, f" <|python_tag|>{_LLAMA}; {_ADD}", "", ["get_weather", "add"]),
        (LLAMA, "Plain { text }.", "Plain { text }.", []),
        (LLAMA, '{"a": 1} is JSON', '{"a": 1} is JSON', []),
    ],
)
def test_calls_and_content(call_format: CallFormat, text: str, content: str, names: list[str]) -> None:
    found, calls = _calls(call_format, text)
    assert (found, [name for name, _ in calls]) == (content, names)
    assert all(arguments == _ARGUMENTS for name, arguments in calls if name == "get_weather")


@pytest.mark.parametrize(
    "text",
    [
        "No call at all.\n",
        "<tool_call>",
        "<tool_call></tool_call>",
        "a <tool_call>\nnothing\n</tool_call> b",
        '<tool_call>{"name": "add"}</tool_call>',
        '<tool_call>{"name": "add", "arguments": "{}"}</tool_call>',
        '<tool_call>{"name": "other", "arguments": {}}</tool_call>',
        '<tool_call>{"name": 3, "arguments": {}}</tool_call>',
        '<tool_call>{"name": "add", "arguments": {"x": NaN}}</tool_call>',
        '<tool_call>{"name": "add", "arguments": {]}}</tool_call>',
        '<tool_call>{"name": "add", "arguments": {"x": "',
        '<tool_call>[{"name": "add", "arguments": {}}]</tool_call>',
        "<tool_call>" + '{"a":' * 5_000 + "}" * 5_000,
        "tail <tool_ca",
    ],
)
def test_what_is_no_call_stays_content_letter_by_letter(text: str) -> None:
    assert _calls(HERMES, text) == (text, [])
    assert _read(HERMES, list(text))[:2] == (text, [])


@given(st.data(), st.sampled_from([(HERMES, _HERMES), (MISTRAL, _MISTRAL), (LLAMA, _LLAMA)]), st.booleans())
def test_where_the_text_is_cut_does_not_matter(
    data: st.DataObject, case: tuple[CallFormat, str], is_certain: bool
) -> None:
    call_format, text = case
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=12)))
    parts = [text[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert _read(call_format, parts, is_certain=is_certain)[:2] == _calls(call_format, text, is_certain=is_certain)


@given(st.lists(st.sampled_from(["<tool_call>", "</tool_call>", "{", "}", '"', "\\", "\n", "a", _ADD, "<tool_"])))
def test_any_text_is_read_to_its_end(parts: list[str]) -> None:
    """Nothing is lost but white space and the calls themselves."""
    content, calls, _ = _read(HERMES, parts)
    for mark in ("<tool_call>", "</tool_call>"):
        assert content.count(mark) <= "".join(parts).count(mark)
    if not calls:
        assert content == "".join(parts)


def test_a_certain_call_is_given_out_as_it_comes() -> None:
    text, calls, pieces = _read(HERMES, list(f"<tool_call>\n{_WEATHER}\n</tool_call>"), is_certain=True)
    assert (text, [name for name, _ in calls]) == ("", ["get_weather"])
    assert (pieces[0].name, pieces[0].arguments, pieces[0].index) == ("get_weather", "", 0)
    assert len(pieces) > 20
    assert "".join(piece.arguments for piece in pieces) == '{"city": "Z\\u00fcrich}", "days": [1, 2]}'
    assert all(piece.call_id is None and piece.name is None for piece in pieces[1:])


def test_a_certain_call_that_is_cut_off_has_what_came() -> None:
    _, calls, _ = _read(HERMES, [f"<tool_call>\n{_WEATHER[:51]}"], is_certain=True)
    assert calls == [("get_weather", '{"city": "Z\\u0')]
    text = f"Yes.\n<tool_call>\n{_ADD}\n</tool_call>\n<tool_call>\n{_WEATHER[:12]}"
    assert _calls(HERMES, text, is_certain=True) == ("Yes.", [("add", "{}")])


def test_after_the_last_call_allowed_nothing_counts() -> None:
    reader = CallReader(HERMES, _NAMES, max_calls=1)
    assert not reader.is_full
    read = reader.feed(_HERMES)
    assert reader.is_full
    assert (len(join_pieces(read.pieces)), reader.feed("more").text, reader.flush()) == (1, "", "")


@pytest.mark.parametrize(("call_format", "length"), [(HERMES, 29), (MISTRAL, 9)])
def test_every_call_has_an_id_of_its_own(call_format: CallFormat, length: int) -> None:
    text = {HERMES: _HERMES, MISTRAL: _MISTRAL}[call_format]
    ids = [piece.call_id for piece in _read(call_format, [text])[2] if piece.call_id is not None]
    assert [len(call_id) for call_id in ids] == [length, length]
    assert len(set(ids)) == 2
