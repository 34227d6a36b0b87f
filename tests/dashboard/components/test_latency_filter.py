from __future__ import annotations

from dashboard.components.latency_filter import RANGES, Choice
from engine.latency import EVERYTHING, Status


def test_nothing_chosen_is_everything() -> None:
    assert Choice(None, (), (), None, None, False).at(1_000.0) == EVERYTHING


def test_range_ends_now() -> None:
    asked = Choice(RANGES["15 min"], ("phone",), (Status.ERRORED,), "api", "key-1", True).at(10_000.0)
    assert (asked.since_s, asked.until_s) == (9_100.0, 10_000.0)
    assert (asked.models, asked.statuses, asked.source) == (("phone",), (Status.ERRORED,), "api")
