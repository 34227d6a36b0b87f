from __future__ import annotations

from dataclasses import replace

from engine.latency.totals import Measure, Totals
from tests.engine.latency.builders import CANCELLED_IN_QUEUE, PLAIN, REFUSED


def test_what_was_let_in_is_counted_by_model() -> None:
    totals = Totals()
    for record in (PLAIN, PLAIN, CANCELLED_IN_QUEUE, replace(PLAIN, model="phone", finish_reason="length")):
        totals.add(record)
    reading = totals.read()
    smol = reading["smol"]
    assert smol.num_by_finish == {"stop": 2, "cancelled": 1}
    assert (smol.num_prompt_tokens, smol.num_output_tokens) == (36, 22)
    assert sum(smol.measures[Measure.E2E].counts) == 3
    assert sum(smol.measures[Measure.TTFT].counts) == 2
    assert smol.measures[Measure.TTFT].total == 0.5
    assert smol.measures[Measure.DECODE].total == 2.0
    assert reading["phone"].num_by_finish == {"length": 1}


def test_what_was_refused_is_counted_by_its_reason_alone() -> None:
    totals = Totals()
    totals.add(REFUSED)
    reading = totals.read()["smol"]
    assert (reading.num_rejected, reading.num_by_finish) == ({"queue_full": 1}, {})
    assert sum(reading.measures[Measure.E2E].counts) == 0


def test_names_that_do_not_exist_share_one_count() -> None:
    totals = Totals()
    for index in range(50):
        totals.add(replace(REFUSED, model=f"guess-{index}", finish_reason="model_not_found"))
    assert {name: reading.num_rejected for name, reading in totals.read().items()} == {"": {"model_not_found": 50}}


def test_names_that_were_refused_before_anybody_looked_are_bounded() -> None:
    totals = Totals()
    for index in range(500):
        totals.add(replace(REFUSED, model=f"guess-{index}", finish_reason="rate_limited"))
    totals.add(replace(PLAIN, model="served"))
    reading = totals.read()
    assert len(reading) == 102
    assert reading[""].num_rejected == {"rate_limited": 400}
    assert reading["served"].num_by_finish == {"stop": 1}
