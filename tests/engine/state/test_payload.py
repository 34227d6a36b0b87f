from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import StoreError
from engine.state.conversation import add_turn, new_conversation
from engine.state.payload import from_payload, to_payload
from tests.engine.state.builders import make_conversation


@pytest.mark.parametrize("indent", [None, 2])
def test_round_trip_keeps_everything(indent: int | None) -> None:
    talk = make_conversation()
    assert from_payload(to_payload(talk, indent)) == talk


@given(st.text(), st.text())
def test_round_trip_of_any_text(system_prompt: str, prompt: str) -> None:
    talk = add_turn(new_conversation(now_s=0.1, system_prompt=system_prompt), prompt, now_s=0.2)
    assert from_payload(to_payload(talk)) == talk


def test_payload_is_strict_json() -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    parsed = json.loads(to_payload(make_conversation()), parse_constant=refuse)
    assert parsed["turns"][0]["answers"][1]["tokens"][1]["top"][1] == ["x", "-Infinity"]


def test_fields_of_a_later_version_are_ignored() -> None:
    talk = make_conversation()
    later = json.loads(to_payload(talk)) | {"folder": "work"}
    assert from_payload(json.dumps(later)) == talk


def test_fields_that_an_earlier_version_lacked_have_defaults() -> None:
    earlier = {"id": "a", "title": "t", "system_prompt": "", "created_at_s": 1, "updated_at_s": 1}
    turn = {"user_text": "Hi", "answers": [{"text": "Hello", "instance_id": "smol"}]}
    answer = from_payload(json.dumps({**earlier, "turns": [turn]})).turns[0].answer
    assert answer is not None
    assert (answer.text, answer.tokens, answer.ttft_s) == ("Hello", None, None)


@pytest.mark.parametrize(
    ("payload", "field"),
    [
        ("nope", "the text"),
        ("{}", "id"),
        (to_payload(make_conversation()).replace('"selected":1', '"selected":9'), r"turns\.0: .*selected is 9"),
    ],
)
def test_anything_else_is_refused_by_field(payload: str, field: str) -> None:
    with pytest.raises(StoreError, match=field):
        from_payload(payload)


def test_text_that_is_no_unicode_is_refused() -> None:
    talk = replace(make_conversation(), title="\ud800")
    with pytest.raises(StoreError, match="broken characters"):
        to_payload(talk)
