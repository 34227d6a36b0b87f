from __future__ import annotations

from dataclasses import replace

import pytest

from engine.latency.record import RequestRecord
from engine.latency.summary import Metric
from tests.engine.latency.builders import CANCELLED_IN_QUEUE, PLAIN


def test_latencies_follow_their_definitions() -> None:
    assert PLAIN.queue_s == 0.01
    assert PLAIN.prefill_s == pytest.approx(0.24)
    assert PLAIN.ttft_s == 0.25
    assert PLAIN.tpot_s == pytest.approx(0.1)
    assert PLAIN.e2e_s == 1.26
    assert PLAIN.decode_s == 1.0
    assert PLAIN.inference_s == pytest.approx(1.24)


def test_what_never_happened_has_no_latency() -> None:
    latencies = [getattr(CANCELLED_IN_QUEUE, metric.column) for metric in Metric]
    assert latencies == [None, None, None, None, 0.5]
    assert (CANCELLED_IN_QUEUE.decode_s, CANCELLED_IN_QUEUE.inference_s) == (None, None)


@pytest.mark.parametrize(
    "record", [replace(PLAIN, num_output_tokens=1), replace(PLAIN, last_token_s=None)], ids=["one", "none"]
)
def test_tpot_needs_two_tokens(record: RequestRecord) -> None:
    assert record.tpot_s is None
