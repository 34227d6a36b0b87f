from __future__ import annotations

import csv
import io
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from dashboard.components.latency_requests import phases_figure, request_rows, to_csv
from tests.engine.latency.builders import CANCELLED_IN_QUEUE, PLAIN


def read(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_rows_are_milliseconds_and_none_where_there_is_none() -> None:
    rows = request_rows([PLAIN, CANCELLED_IN_QUEUE], UTC)
    assert rows["Received"][0] == datetime(2023, 11, 14, 22, 13, 20)
    assert rows["TTFT"] == [250.0, None]
    assert rows["TPOT"] == [pytest.approx(100.0), None]
    assert rows["E2E"] == [1_260.0, 500.0]
    assert rows["Queue"] == [10.0, None]
    assert {len(column) for column in rows.values()} == {2}


def test_csv_has_raw_and_derived_timings_once_each() -> None:
    (row, cancelled) = read(to_csv([PLAIN, CANCELLED_IN_QUEUE]))
    assert row["request_id"] == "req-0"
    assert float(row["ttft_s"]) == 0.25
    assert float(row["tpot_s"]) == pytest.approx(0.1)
    assert row["status"] == "successful"
    assert cancelled["ttft_s"] == ""
    header = to_csv([]).strip().split(",")
    assert len(header) == len(set(header))
    assert {"queue_s", "prefill_s", "e2e_s", "received_at_s", "error"} <= set(header)


@pytest.mark.parametrize("begin", ["=", "+", "-", "@"])
def test_csv_keeps_a_formula_as_text(begin: str) -> None:
    (row,) = read(to_csv([replace(PLAIN, model=f"{begin}cmd|' /C calc'!A0", error='a "quoted", line\nand another')]))
    assert row["model"].startswith(f"'{begin}")
    assert row["error"] == 'a "quoted", line\nand another'


def test_breakdown_has_a_bar_a_phase() -> None:
    figure = phases_figure(PLAIN)
    assert [trace.name for trace in figure.data] == [
        "queue 10.0 ms",
        "prefill 240 ms",
        "decode 1.00 s",
        "finish 10.0 ms",
    ]
    assert sum(trace.x[0] for trace in figure.data) == pytest.approx(1.26)
    assert phases_figure(CANCELLED_IN_QUEUE).layout.xaxis.title.text == "ms after receipt"
