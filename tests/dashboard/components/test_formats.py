from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dashboard.components.formats import (
    format_bytes,
    format_bytes_rate,
    format_count,
    format_large,
    format_rate,
    format_ratio,
    format_seconds,
    format_with_unit,
    plain,
    plural,
    unbroken,
)

_SECONDS = {"ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3_600.0, "d": 86_400.0}


@pytest.mark.parametrize(
    ("value_s", "text"),
    [
        (0.0, "0 ms"),
        (0.000001, "<0.01 ms"),
        (0.00123, "1.23 ms"),
        (0.0456, "45.6 ms"),
        (0.2449, "245 ms"),
        (0.9996, "1.00 s"),
        (1.2649, "1.26 s"),
        (9.996, "10.0 s"),
        (59.96, "1 min"),
        (125, "2 min 5 s"),
        (3_599.7, "1 h"),
        (12_000, "3 h 20 min"),
        (187_200, "2 d 4 h"),
        (-0.5, "-500 ms"),
    ],
)
def test_seconds(value_s: float, text: str) -> None:
    assert format_seconds(value_s) == text


@given(st.floats(min_value=1e-5, max_value=1e7))
def test_seconds_read_back_to_the_same(value_s: float) -> None:
    parts = re.findall(r"([\d.]+) (ms|s|min|h|d)", format_seconds(value_s))
    read_s = sum(float(number) * _SECONDS[unit] for number, unit in parts)
    assert read_s == pytest.approx(value_s, rel=0.05)


@given(st.floats(min_value=0, max_value=1e7), st.floats(min_value=0, max_value=1e7))
def test_seconds_never_show_more_than_three_digits_before_the_unit(first_s: float, second_s: float) -> None:
    for value_s in (first_s, second_s):
        assert all(len(number.replace(".", "")) <= 3 for number in re.findall(r"[\d.]+", format_seconds(value_s)))


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0 B"), (999, "999 B"), (1_000, "1.0 kB"), (999_960, "1.0 MB"), (271_300_000, "271.3 MB"), (2e12, "2.0 TB")],
)
def test_bytes(value: float, text: str) -> None:
    assert format_bytes(value) == text
    assert format_bytes_rate(value) == f"{text}/s"


@given(st.integers(min_value=0, max_value=10**15))
def test_bytes_read_back_to_the_same(value: int) -> None:
    number, unit = format_bytes(value).split()
    size = {"B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12}[unit]
    assert float(number) * size == pytest.approx(value, rel=0.06, abs=0.5)


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0"), (999, "999"), (134_515_008, "134.5 M"), (9_400_000_000, "9.4 B"), (999_990_000, "1.0 B")],
)
def test_large(count: int, text: str) -> None:
    assert format_large(count) == text


def test_the_rest() -> None:
    assert format_count(12_345) == "12,345"
    assert format_ratio(0.426) == "43 %"
    assert (format_rate(23.44), format_rate(1_234.5)) == ("23.4", "1,234")
    assert format_with_unit(1_980.0, "MHz") == "1,980 MHz"
    assert (plural(1, "request"), plural(0, "request"), plural(12_000, "token")) == (
        "1 request",
        "0 requests",
        "12,000 tokens",
    )
    assert unbroken("245 ms") == "245\N{NO-BREAK SPACE}ms"


@pytest.mark.parametrize(
    "format_it",
    [format_seconds, format_bytes, format_bytes_rate, format_count, format_large, format_ratio, format_rate],
)
def test_missing_is_a_dash(format_it: object) -> None:
    assert format_it(None) == "–"  # type: ignore[operator]
    assert format_with_unit(None, "W") == "–"


@given(st.text())
def test_plain_leaves_no_markup_and_loses_nothing(text: str) -> None:
    shown = plain(text)
    assert re.sub(r"\\([\\`*_{}\[\]<>#|~$:])", r"\1", shown) == text
    assert not re.search(r"(?<!\\)(\\\\)*[*_`$\[]", shown)
