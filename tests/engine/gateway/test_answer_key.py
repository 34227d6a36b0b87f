"""What changes the key of an answer, and what does not."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.gateway.answer_key import answer_key, is_deterministic, run_key
from engine.inference.images import ImagePart
from engine.inference.request import Message, Request, SamplingParams
from engine.inference.tools import JsonSchema, Tool, ToolUse
from tests.vision_models import picture_bytes

_IDENTITY = ("route", (("m", 1),))
_BASE = Request(
    "m",
    (Message("user", "Hello"),),
    SamplingParams(temperature=0.7, seed=7),
    request_id="one",
    key_id="key-1",
    is_cacheable=True,
)
_MESSAGES = st.lists(
    st.builds(
        Message, st.sampled_from(["user", "system", "assistant"]), st.text(max_size=20), name=st.none() | st.text()
    ),
    min_size=1,
    max_size=3,
).map(tuple)
_SAMPLING = st.builds(
    SamplingParams,
    temperature=st.floats(0.1, 2),
    top_p=st.floats(0.1, 1),
    top_k=st.integers(0, 50),
    logit_bias=st.dictionaries(st.integers(0, 9), st.floats(-1, 1), max_size=3),
    seed=st.integers(0, 2**40),
    stop=st.lists(st.text(min_size=1, max_size=5), max_size=3).map(tuple),
    max_tokens=st.none() | st.integers(1, 99),
    top_logprobs=st.none() | st.integers(0, 20),
)
_REQUESTS = st.builds(
    Request, st.sampled_from(["m", "n"]), _MESSAGES, _SAMPLING, key_id=st.sampled_from([None, "key-1", "key-2"])
)

_OTHER_SAMPLING = {
    "temperature": 0.8,
    "top_p": 0.5,
    "top_k": 3,
    "min_p": 0.1,
    "repetition_penalty": 1.1,
    "presence_penalty": 0.5,
    "frequency_penalty": 0.5,
    "logit_bias": {3: 1.0},
    "seed": 8,
    "stop": ("a",),
    "max_tokens": 5,
    "top_logprobs": 2,
}
_OTHER = {
    "model": "n",
    "messages": (Message("user", "Hello!"),),
    "prompt": "Hello",
    "key_id": "key-2",
    "tools": ToolUse((Tool("f", "", {}),)),
    "constraint": JsonSchema({"type": "object"}),
}
_NO_MATTER = {
    "request_id": "two",
    "source": "api",
    "timeout_s": 3.0,
    "priority": 2,
    "max_queue_s": 1.0,
    "is_cacheable": False,
    "trace_parent": "00-0123456789abcdef0123456789abcdef-0123456789abcdef-01",
}


def test_every_field_is_said_to_matter_or_not() -> None:
    """A field that is new has to be put into one of the two lists above."""
    assert {field.name for field in fields(Request)} == {*_OTHER, *_NO_MATTER, "sampling"}
    assert {field.name for field in fields(SamplingParams)} == set(_OTHER_SAMPLING)


@pytest.mark.parametrize("name", _OTHER)
def test_what_matters_changes_the_key(name: str) -> None:
    assert answer_key(replace(_BASE, **{name: _OTHER[name]}), _IDENTITY) != answer_key(_BASE, _IDENTITY)


@pytest.mark.parametrize("name", _OTHER_SAMPLING)
def test_every_parameter_of_sampling_changes_the_key(name: str) -> None:
    other = replace(_BASE, sampling=replace(_BASE.sampling, **{name: _OTHER_SAMPLING[name]}))
    assert answer_key(other, _IDENTITY) != answer_key(_BASE, _IDENTITY)


@pytest.mark.parametrize("name", _NO_MATTER)
def test_what_does_not_matter_leaves_the_key(name: str) -> None:
    assert answer_key(replace(_BASE, **{name: _NO_MATTER[name]}), _IDENTITY) == answer_key(_BASE, _IDENTITY)


@pytest.mark.parametrize("name", ["timeout_s", "priority", "max_queue_s"])
def test_a_run_is_shared_only_within_the_same_bounds(name: str) -> None:
    key = answer_key(_BASE, _IDENTITY)
    assert run_key(replace(_BASE, **{name: _NO_MATTER[name]}), key) != run_key(_BASE, key)


def test_another_version_behind_the_name_has_another_key() -> None:
    assert answer_key(_BASE, ("route", (("m", 2),))) != answer_key(_BASE, _IDENTITY)


@given(_REQUESTS, _REQUESTS)
def test_two_requests_share_a_key_only_if_they_ask_the_same(one: Request, other: Request) -> None:
    ignored = {name: _NO_MATTER[name] for name in _NO_MATTER}
    is_same = replace(one, **ignored) == replace(other, **ignored)
    assert (answer_key(one, _IDENTITY) == answer_key(other, _IDENTITY)) == is_same


@given(_REQUESTS, st.integers(0, 2**40), st.text(min_size=1))
def test_greedy_answers_depend_on_no_seed(request: Request, seed: int, request_id: str) -> None:
    greedy = replace(request, sampling=replace(request.sampling, temperature=0.0))
    other = replace(greedy, sampling=replace(greedy.sampling, seed=seed), request_id=request_id)
    assert answer_key(greedy, _IDENTITY) == answer_key(other, _IDENTITY)


def test_the_order_of_biases_means_nothing() -> None:
    one, other = ({1: 0.5, 2: 1.0}, {2: 1.0, 1: 0.5})
    keys = {answer_key(replace(_BASE, sampling=SamplingParams(logit_bias=bias)), _IDENTITY) for bias in (one, other)}
    assert len(keys) == 1


@pytest.mark.parametrize(
    ("sampling", "is_one"),
    [
        (SamplingParams(), False),
        (SamplingParams(temperature=0.0), True),
        (SamplingParams(seed=1), True),
    ],
)
def test_greedy_or_seeded_requests_have_one_answer(sampling: SamplingParams, is_one: bool) -> None:
    assert is_deterministic(replace(_BASE, sampling=sampling)) is is_one


def test_half_a_character_has_a_key() -> None:
    """It is refused later, by its name."""
    assert answer_key(replace(_BASE, messages=(Message("user", "\ud800"),)), _IDENTITY)


def test_pictures_are_told_apart() -> None:
    def key(*content: str | ImagePart) -> bytes:
        return answer_key(replace(_BASE, messages=(Message("user", content),)), _IDENTITY)

    first, second = ImagePart(picture_bytes(1)), ImagePart(picture_bytes(2))
    keys = [key(first, "?"), key(second, "?"), key("?", first), key(replace(first, detail="low"), "?"), key(first)]
    assert len(set(keys)) == len(keys)
    assert key(replace(first, place="input.0"), "?") == keys[0]
