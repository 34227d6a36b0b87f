"""Answers are held against numpy over the same records, read from a real DuckDB."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import InvalidRequestError
from engine.latency.filter import EVERYTHING, RecordFilter
from engine.latency.record import RequestRecord, Status
from engine.latency.store import RecordStore
from engine.latency.summary import Metric, MetricSummary
from tests.engine.latency.builders import EPOCH_S, PLAIN, REFUSED, make_records

RECORDS = make_records(500)
EMPTY = {metric: MetricSummary() for metric in Metric}


def _filled(records: list[RequestRecord]) -> RecordStore:
    store = RecordStore.open(None)
    for record in records:
        store.append(record)
    store.flush()
    return store


@pytest.fixture(scope="module")
def store() -> Iterator[RecordStore]:
    filled = _filled(RECORDS)
    yield filled
    filled.close()


def _values_s(records: list[RequestRecord], metric: Metric) -> list[float]:
    values = (getattr(record, metric.column) for record in records)
    return [value for value in values if value is not None]


def _assert_equals_numpy(summary: MetricSummary, records: list[RequestRecord], metric: Metric) -> None:
    values_s = _values_s(records, metric)
    assert summary.num_samples == len(values_s)
    found = (summary.p50_s, summary.p95_s, summary.p99_s, summary.max_s)
    if not values_s:
        assert found == (None, None, None, None)
        return
    assert found == pytest.approx(np.percentile(values_s, [50, 95, 99, 100]).tolist(), rel=1e-12)


@pytest.mark.parametrize("metric", list(Metric))
def test_summary_equals_numpy(store: RecordStore, metric: Metric) -> None:
    _assert_equals_numpy(store.summarize().metrics[metric], RECORDS, metric)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.builds(
            replace,
            st.just(PLAIN),
            scheduled_s=st.none() | st.floats(0, 10),
            first_token_s=st.none() | st.floats(0, 10),
            last_token_s=st.none() | st.floats(10, 20),
            finished_s=st.floats(0, 100),
            num_output_tokens=st.integers(0, 5),
        ),
        max_size=30,
    )
)
def test_summary_of_any_records_equals_numpy(records: list[RequestRecord]) -> None:
    store = _filled(records)
    summary = store.summarize()
    store.close()
    assert summary.num_records == len(records)
    for metric in Metric:
        _assert_equals_numpy(summary.metrics[metric], records, metric)


def test_summary_counts_statuses_and_tokens(store: RecordStore) -> None:
    summary = store.summarize()
    assert summary.num_by_status == {**dict.fromkeys(Status, 0), Status.SUCCESSFUL: 450, Status.CANCELLED: 50}
    assert summary.num_prompt_tokens == sum(record.num_prompt_tokens for record in RECORDS)
    assert summary.num_output_tokens == sum(record.num_output_tokens for record in RECORDS)


@pytest.mark.parametrize(
    ("filter", "fits"),
    [
        (RecordFilter(models=("phone",)), lambda record: record.model == "phone"),
        (RecordFilter(statuses=(Status.CANCELLED,)), lambda record: record.status is Status.CANCELLED),
        (RecordFilter(key_id="key-1"), lambda record: record.key_id == "key-1"),
        (RecordFilter(source="playground"), lambda record: record.source == "playground"),
        (RecordFilter(since_s=EPOCH_S + 100), lambda record: record.received_at_s >= EPOCH_S + 100),
        (RecordFilter(until_s=EPOCH_S + 100), lambda record: record.received_at_s < EPOCH_S + 100),
        (RecordFilter(models=("phone", "smol")), lambda _: True),
        (RecordFilter(models=()), lambda _: False),
        (RecordFilter(models=("'; DROP TABLE requests; --",)), lambda _: False),
    ],
    ids=["model", "status", "key", "source", "since", "until", "all-models", "no-model", "hostile"],
)
def test_every_question_keeps_to_the_filter(
    store: RecordStore, filter: RecordFilter, fits: Callable[[RequestRecord], bool]
) -> None:
    fitting = [record for record in RECORDS if fits(record)]
    _assert_equals_numpy(store.summarize(filter).metrics[Metric.TTFT], fitting, Metric.TTFT)
    assert sum(bucket.num_records for bucket in store.series(filter)) == len(fitting)
    assert bool(store.distribution(filter, Metric.E2E)) == bool(fitting)
    assert store.recent(filter, limit=1_000) == tuple(reversed(fitting))


def test_nothing_stored_answers_with_empty_samples() -> None:
    store = RecordStore.open(None)
    summary = store.summarize()
    assert (summary.metrics, summary.num_records, summary.num_output_tokens) == (EMPTY, 0, 0)
    assert store.series() == ()
    assert store.distribution(EVERYTHING, Metric.TTFT) == ()
    assert store.recent() == ()
    assert store.models() == ()
    store.close()


def test_series_splits_the_range_evenly(store: RecordStore) -> None:
    buckets = store.series(RecordFilter(since_s=EPOCH_S, until_s=EPOCH_S + 500), num_buckets=5)
    assert [bucket.start_s - EPOCH_S for bucket in buckets] == [0, 100, 200, 300, 400]
    assert [bucket.end_s - EPOCH_S for bucket in buckets] == [100, 200, 300, 400, 500]
    for index, bucket in enumerate(buckets):
        records = RECORDS[100 * index : 100 * (index + 1)]
        assert bucket.num_records == 100
        for metric in Metric:
            _assert_equals_numpy(bucket.metrics[metric], records, metric)


def test_series_with_open_ends_spans_the_records(store: RecordStore) -> None:
    buckets = store.series(num_buckets=10)
    assert (buckets[0].start_s, buckets[-1].end_s) == (EPOCH_S, EPOCH_S + 499)
    assert sum(bucket.num_records for bucket in buckets) == 500


def test_series_keeps_empty_buckets() -> None:
    store = _filled([PLAIN, replace(PLAIN, received_at_s=EPOCH_S + 100)])
    buckets = store.series(num_buckets=4)
    store.close()
    assert [bucket.num_records for bucket in buckets] == [1, 0, 0, 1]
    assert buckets[1].metrics == EMPTY


def test_series_of_one_record() -> None:
    store = _filled([PLAIN])
    buckets = store.series(num_buckets=3)
    store.close()
    assert [bucket.num_records for bucket in buckets] == [1, 0, 0]


def test_series_of_a_range_turned_round_is_empty(store: RecordStore) -> None:
    assert store.series(RecordFilter(since_s=EPOCH_S + 10, until_s=EPOCH_S)) == ()


@pytest.mark.parametrize("metric", list(Metric))
def test_distribution_is_exact(store: RecordStore, metric: Metric) -> None:
    points = store.distribution(EVERYTHING, metric, num_points=50)
    values_s = _values_s(RECORDS, metric)
    assert [point.fraction for point in points] == pytest.approx(np.linspace(0, 1, 50).tolist())
    assert [point.value_s for point in points] == pytest.approx(
        [float(np.quantile(values_s, point.fraction)) for point in points], rel=1e-12
    )


def test_distribution_meets_the_summary(store: RecordStore) -> None:
    points = store.distribution(EVERYTHING, Metric.TTFT, num_points=101)
    summary = store.summarize().metrics[Metric.TTFT]
    assert points[50].value_s == pytest.approx(summary.p50_s)
    assert points[95].value_s == pytest.approx(summary.p95_s)
    assert points[100].value_s == summary.max_s


def test_recent_is_newest_first_and_limited(store: RecordStore) -> None:
    assert store.recent(limit=3) == tuple(reversed(RECORDS[-3:]))


def test_models_are_sorted(store: RecordStore) -> None:
    assert store.models() == ("phone", "smol")


def test_models_and_keys_are_those_that_were_there() -> None:
    store = _filled([PLAIN, REFUSED, replace(REFUSED, model="guessed", finish_reason="model_not_found")])
    assert (store.models(), store.keys()) == (("smol",), ("key-1",))
    store.close()


def test_sizes_out_of_bounds_are_refused(store: RecordStore) -> None:
    with pytest.raises(InvalidRequestError, match="num_buckets is 0, but must be at least 1"):
        store.series(num_buckets=0)
    with pytest.raises(InvalidRequestError, match="num_points is 1"):
        store.distribution(EVERYTHING, Metric.TTFT, num_points=1)
    with pytest.raises(InvalidRequestError, match="limit is 0"):
        store.recent(limit=0)
