from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dashboard.components.parameters import parse_bias
from engine.errors import InvalidRequestError


@given(bias=st.dictionaries(st.integers(0, 10**6), st.floats(-100, 100)))
def test_bias_survives_being_typed(bias: dict[int, float]) -> None:
    assert parse_bias(", ".join(f"{token_id}: {value}" for token_id, value in bias.items())) == bias


def test_nothing_typed_is_no_bias() -> None:
    assert parse_bias(" , ") == {}


@pytest.mark.parametrize("text", ["504", "x: 1", "504: much", "504; 1"])
def test_what_is_no_bias_is_named(text: str) -> None:
    with pytest.raises(InvalidRequestError, match="token id: bias") as refusal:
        parse_bias(f"30: 5, {text}")
    assert text in str(refusal.value)
