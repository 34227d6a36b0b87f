from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.inference.request import Delta, FinishReason, TokenInfo
from engine.inference.tools import CallPiece
from engine.remote.chunks import UNKNOWN_TOKEN, ChunkReader
from engine.remote.trouble import RemoteError
from tests.engine.remote.openai_server import chunk, usage


def test_an_answer_from_its_first_event_to_its_last() -> None:
    reader = ChunkReader("far")
    assert reader.feed(chunk({"role": "assistant", "content": ""})) is None
    assert reader.feed(chunk({"content": "Hi"})) == Delta("Hi", (TokenInfo(UNKNOWN_TOKEN, "Hi"),))
    assert reader.num_output_tokens == 1
    assert reader.feed(chunk(finish_reason="length")) is None
    assert reader.feed(usage(5, 12)) is None
    assert not reader.is_done
    assert reader.feed("[DONE]") is None
    assert (reader.reason, reader.num_prompt_tokens, reader.num_output_tokens) == (FinishReason.LENGTH, 5, 12)
    assert reader.is_done


def test_a_plain_completion_has_its_text_in_the_choice() -> None:
    reader = ChunkReader("far")
    delta = reader.feed(json.dumps({"choices": [{"text": " there", "finish_reason": "stop"}]}))
    assert delta is not None
    assert (delta.text, reader.reason) == (" there", FinishReason.STOP)


def test_log_probabilities_are_the_tokens() -> None:
    item = {"token": "Hi", "logprob": -0.5, "top_logprobs": [{"token": "Ho", "logprob": -1.5}]}
    delta = ChunkReader("far").feed(chunk({"content": "Hi"}, logprobs={"content": [item]}))
    assert delta == Delta("Hi", (TokenInfo(UNKNOWN_TOKEN, "Hi", -0.5, ((UNKNOWN_TOKEN, "Ho", -1.5),)),))


def test_calls_of_tools_come_in_pieces() -> None:
    reader = ChunkReader("far")
    first = {"index": 0, "id": "c1", "type": "function", "function": {"name": "go", "arguments": ""}}
    assert reader.feed(chunk({"tool_calls": [first]})) == Delta("", (), (CallPiece(0, "", "c1", "go"),))
    more = {"index": 0, "function": {"arguments": '{"x"'}}
    assert reader.feed(chunk({"tool_calls": [more]})) == Delta("", (), (CallPiece(0, '{"x"'),))
    reader.feed(chunk(finish_reason="tool_calls"))
    assert reader.reason is FinishReason.STOP


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ("<html>", "belongs to no answer"),
        ("[1]", "belongs to no answer"),
        ('{"choices": [7]}', "belongs to no answer"),
        ('{"choices": [{"delta": "x"}]}', "belongs to no answer"),
        ('{"usage": {"prompt_tokens": "many"}}', "belongs to no answer"),
        ('{"error": {"message": "out of memory"}}', "far broke off: out of memory"),
        ('{"error": "out of memory"}', "far broke off: out of memory"),
        (chunk(finish_reason="content_filter"), "withheld the rest"),
    ],
)
def test_what_is_no_part_of_an_answer_is_an_error(data: str, words: str) -> None:
    with pytest.raises(RemoteError, match=words):
        ChunkReader("far").feed(data)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["choices", "delta", "content", "usage", "error", "logprobs", "tool_calls", "finish_reason"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(JSON.map(json.dumps) | st.text())
def test_nothing_that_a_server_sends_raises_anything_else(data: str) -> None:
    try:
        delta = ChunkReader("far").feed(data)
    except RemoteError:
        return
    assert delta is None or isinstance(delta, Delta)
