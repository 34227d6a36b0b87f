"""Request records for tests."""

from __future__ import annotations

import random
from dataclasses import replace

from engine.latency.record import RequestRecord, Status

EPOCH_S = 1_700_000_000.0

PLAIN = RequestRecord(
    request_id="req-0",
    model="smol",
    source="api",
    received_at_s=EPOCH_S,
    scheduled_s=0.01,
    first_token_s=0.25,
    last_token_s=1.25,
    finished_s=1.26,
    num_prompt_tokens=12,
    num_output_tokens=11,
    finish_reason="stop",
    status=Status.SUCCESSFUL,
)

CANCELLED_IN_QUEUE = replace(
    PLAIN,
    request_id="req-cancelled",
    scheduled_s=None,
    first_token_s=None,
    last_token_s=None,
    finished_s=0.5,
    num_output_tokens=0,
    finish_reason="cancelled",
    status=Status.CANCELLED,
)


REFUSED = replace(
    CANCELLED_IN_QUEUE,
    request_id="req-refused",
    finished_s=0.0001,
    num_prompt_tokens=0,
    finish_reason="queue_full",
    status=Status.REJECTED,
    error="the queue of smol is full",
    key_id="key-1",
)


def make_records(num_records: int, seed: int = 0) -> list[RequestRecord]:
    """One record a second; every tenth was cancelled in the queue and every ninth has one output token."""
    rng = random.Random(seed)
    return [_make_record(index, rng) for index in range(num_records)]


def _make_record(index: int, rng: random.Random) -> RequestRecord:
    record = replace(
        CANCELLED_IN_QUEUE if index % 10 == 3 else PLAIN,
        request_id=f"req-{index}",
        model=rng.choice(("smol", "phone")),
        source=rng.choice(("api", "playground")),
        received_at_s=EPOCH_S + index,
        num_prompt_tokens=rng.randint(1, 2_000),
    )
    if record.status is Status.CANCELLED:
        return replace(record, finished_s=rng.random())
    scheduled_s = rng.expovariate(50.0)
    first_token_s = scheduled_s + rng.expovariate(5.0)
    num_output_tokens = 1 if index % 9 == 0 else rng.randint(2, 300)
    last_token_s = first_token_s + (num_output_tokens - 1) * rng.uniform(0.005, 0.05)
    return replace(
        record,
        scheduled_s=scheduled_s,
        first_token_s=first_token_s,
        last_token_s=last_token_s,
        finished_s=last_token_s + 0.001,
        num_output_tokens=num_output_tokens,
    )
