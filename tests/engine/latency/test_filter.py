from __future__ import annotations

from engine.latency.filter import EVERYTHING, RecordFilter, where_clause
from engine.latency.record import Status


def test_everything_needs_no_clause() -> None:
    assert where_clause(EVERYTHING) == ("", [])


def test_every_field_narrows_and_is_a_placeholder() -> None:
    sql, parameters = where_clause(RecordFilter(("a", "b"), (Status.ERRORED,), 1.0, 2.0, "api", "key-1"))
    assert sql == (
        " WHERE model IN (?, ?) AND status IN (?) AND received_at_s >= ? AND received_at_s < ?"
        " AND source = ? AND key_id = ?"
    )
    assert parameters == ["a", "b", "errored", 1.0, 2.0, "api", "key-1"]


def test_empty_choice_fits_nothing() -> None:
    assert where_clause(RecordFilter(models=())) == (" WHERE FALSE", [])
