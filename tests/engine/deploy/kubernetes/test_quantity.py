"""Kubernetes quantities."""

from __future__ import annotations

import contextlib
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.deploy.kubernetes import parse_quantity

SUFFIXES = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", "0"),
        ("100m", "0.1"),
        ("1.5Gi", "1610612736"),
        ("12e6", "12000000"),
        ("12E6", "12000000"),
        ("1E", "1000000000000000000"),
        ("1Ei", "1152921504606846976"),
        (".5", "0.5"),
        ("5.", "5"),
        ("+1k", "1000"),
        ("-1k", "-1000"),
        ("1e-3", "0.001"),
        ("24581256Ki", "25171206144"),
        (8, "8"),
        (0.5, "0.5"),
    ],
)
def test_examples(text: str | int | float, value: str) -> None:
    assert parse_quantity(text) == Decimal(value)


@given(st.integers(0, 10**9), st.sampled_from(sorted(SUFFIXES)))
def test_decimal_suffix_is_a_power_of_ten(number: int, suffix: str) -> None:
    assert parse_quantity(f"{number}{suffix}") == Decimal(number).scaleb(SUFFIXES[suffix])


@given(st.integers(0, 10**6), st.integers(1, 6))
def test_binary_suffix_is_a_power_of_1024(number: int, power: int) -> None:
    assert parse_quantity(f"{number}{' KMGTPE'[power]}i") == number * 1024**power


@given(st.integers(-(10**6), 10**6), st.integers(-9, 18))
def test_exponent_means_what_it_means_elsewhere(number: int, exponent: int) -> None:
    assert parse_quantity(f"{number}e{exponent}") == Decimal(f"{number}e{exponent}")


@given(st.integers(0, 10**6))
def test_thousand_milli_is_one(number: int) -> None:
    assert parse_quantity(f"{number * 1000}m") == parse_quantity(str(number)) == parse_quantity(f"{number}.0")


@given(st.text(max_size=6))
def test_any_text_is_a_number_or_a_value_error(text: str) -> None:
    with contextlib.suppress(ValueError):
        assert parse_quantity(text).is_finite()


@pytest.mark.parametrize(
    "text", ["", "m", "1 Gi", "1gi", "1K", "1.2.3", "0x10", "1e", "1ee3", "nan", "inf", "1_000", "٣"]
)
def test_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no Kubernetes quantity"):
        parse_quantity(text)
