from __future__ import annotations

from engine.latency.record import Status
from engine.latency.schema import COLUMNS, VIEW, from_row, to_row
from engine.latency.store import RecordStore
from engine.latency.summary import Metric
from tests.engine.latency.builders import CANCELLED_IN_QUEUE, PLAIN, REFUSED, make_records


def test_row_round_trip() -> None:
    for record in (PLAIN, CANCELLED_IN_QUEUE, REFUSED):
        assert from_row(to_row(record)) == record


def test_status_comes_back_as_a_member() -> None:
    row = [str(value) if name == "status" else value for name, value in zip(COLUMNS, to_row(PLAIN), strict=True)]
    assert from_row(row).status is Status.SUCCESSFUL


def test_view_derives_what_the_record_derives() -> None:
    records = make_records(100)
    store = RecordStore.open(None)
    for record in records:
        store.append(record)
    store.flush()
    metrics = ", ".join(metric.column for metric in Metric)
    rows = store.rows(f"SELECT {metrics} FROM {VIEW} ORDER BY received_at_s")
    store.close()
    assert rows == [tuple(getattr(record, metric.column) for metric in Metric) for record in records]
