"""The cells of the lab's tables."""

from __future__ import annotations

from dataclasses import replace

from dashboard.components.lab_table import change_pct, interval_text, quality_columns, sorted_results, speed_columns
from engine.lab import Estimate
from tests.engine.lab.builders import experiment


def test_original_first_then_by_divergence_then_what_failed() -> None:
    assert [result.label for result in sorted_results(experiment())] == [
        "float32",
        "bfloat16",
        "int4-weight, group of 32",
    ]


def test_change_is_in_percent_and_missing_without_both() -> None:
    assert change_pct(150.0, 100.0) == 50.0
    assert change_pct(None, 100.0) is None
    assert change_pct(150.0, None) is None


def test_interval_is_missing_without_bounds() -> None:
    assert interval_text(Estimate(2.0, 1.0, 3.0), "{:.1f}".format) == "1.0 – 3.0"
    assert interval_text(Estimate(2.0), "{:.1f}".format) is None
    assert interval_text(None, "{:.1f}".format) is None


def test_quality_is_compared_with_the_original() -> None:
    columns = quality_columns(experiment())
    assert columns["KL"] == [0.0, 0.002, None]
    assert columns["Δ perplexity 95 %"] == [None, "+0.10 – +1.00", None]
    assert columns["Perplexity 95 %"][0] == "16.00 – 20.00"


def test_speed_in_the_units_of_its_titles() -> None:
    columns = speed_columns(experiment())
    assert columns["TTFT, ms"] == [100.0, 200.0, None]
    assert columns["TTFT, ms 95 %"][1] == "190.0 – 220.0"
    assert columns["Δ load"] == [None, -50.0, None]


def test_a_column_that_nobody_fills_is_left_out() -> None:
    empty = replace(experiment(), results=(experiment().results[1],))
    assert list(speed_columns(empty)) == ["Variant"]
    assert speed_columns(replace(empty, results=())) == {}
