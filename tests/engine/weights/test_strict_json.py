from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.weights.strict_json import parse_json, shorten

_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(_VALUES)
def test_what_json_writes_is_read(value: Any) -> None:
    assert parse_json(json.dumps(value)) == value


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"", "it is not JSON"),
        (b"{", "it is not JSON"),
        (b"\xff\xfe", "it is not UTF-8"),
        (b'{"a": 1, "b": 2, "a": 3}', "it gives the key 'a' twice"),
        (b'[{"x": {"k": 1, "k": 1}}]', "it gives the key 'k' twice"),
        (b"[" * 200_000, "it is nested too deeply"),
        (b'{"a":' * 200_000, "it is nested too deeply"),
        (b"[NaN]", "NaN, which is no JSON number"),
        (b"[-Infinity]", "-Infinity"),
        (b"1" * 10_000, "integer string conversion"),
    ],
)
def test_what_is_refused(raw: bytes, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_json(raw)


@given(st.binary(max_size=200))
def test_garbage_is_a_value_error_or_a_value(raw: bytes) -> None:
    try:
        value = parse_json(raw)
    except ValueError:
        return
    assert value == json.loads(raw.decode())


def test_long_names_are_cut_in_messages() -> None:
    assert shorten("a" * 80) == "a" * 80
    assert shorten("a" * 81) == "a" * 80 + "..."
