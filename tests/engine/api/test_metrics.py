from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.applications import Starlette

from engine.api.metrics import RequestCollector
from engine.config import Settings
from engine.console import Console
from engine.errors import ConsoleError
from engine.inference.request import Message, Request
from engine.latency.histogram import FIRST_TOKEN_BOUNDS_S
from engine.latency.totals import Totals
from tests.engine.api.servers import build_app, call, fake_console
from tests.engine.latency.builders import CANCELLED_IN_QUEUE, PLAIN, REFUSED
from tests.fakes import FakeBackend, FakeRunner, fake_spec, wait_until

Readings = dict[tuple[str, ...], float]
_HELLO = (Message("user", "Hi"),)


@pytest.fixture
def empty_console(tmp_path: Path, backend: FakeBackend) -> Iterator[Console]:
    with fake_console(Settings(home=tmp_path), backend) as one:
        yield one


def _readings(app: Starlette) -> Readings:
    """Name and the values of the labels, in the order of their names."""
    response = call(app, "GET", "/metrics")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/plain")
    return {
        (sample.name, *(sample.labels[label] for label in sorted(sample.labels))): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }


def _count(readings: Readings, name: str) -> float | None:
    return readings.get((name, "m"))


def test_nothing_before_a_console_is_open() -> None:
    assert _readings(build_app(None)) == {}


def test_a_model_that_cannot_be_loaded_is_not_ready(empty_console: Console, backend: FakeBackend) -> None:
    backend.load_gate.clear()
    empty_console.engine.load(fake_spec())
    readings = _readings(build_app(empty_console))
    assert readings["console_instance_ready", "m"] == 0
    assert ("vllm:num_requests_running", "m") not in readings


def test_a_busy_model(app: Starlette, console: Console, backend: FakeBackend) -> None:
    backend.gate.clear()
    streams = [console.engine.stream(Request("m", _HELLO)) for _ in range(3)]
    readings = _readings(app)
    assert readings["console_instance_ready", "m"] == 1
    assert readings["console_worker_restarts", "m"] == 0
    assert readings["vllm:num_requests_running", "m"] == 3
    assert readings["vllm:num_requests_waiting", "m"] == 0
    assert readings["vllm:kv_cache_usage_perc", "m"] == 0
    for stream in streams:
        stream.close()


def test_requests_that_hold_up_steps(app: Starlette, monkeypatch: pytest.MonkeyPatch) -> None:
    real = FakeRunner.stats
    monkeypatch.setattr(FakeRunner, "stats", lambda self: replace(real(self), num_held_up={"grammar": 2}))
    readings = _readings(app)
    assert readings["console_steps_held_up_requests_total", "m", "grammar"] == 2


def test_requests_that_ended_and_that_were_refused(app: Starlette, console: Console, backend: FakeBackend) -> None:
    for _ in range(2):
        list(console.engine.stream(Request("m", _HELLO)))
    for refused in (Request("m", ()), Request("nobody", _HELLO), Request("somebody", _HELLO)):
        with pytest.raises(ConsoleError):
            console.engine.stream(refused)
    wait_until(lambda: _count(_readings(app), "vllm:e2e_request_latency_seconds_count") == 2)
    readings = _readings(app)
    assert readings["vllm:request_success_total", "stop", "m"] == 2
    assert _count(readings, "vllm:prompt_tokens_total") == 2
    assert _count(readings, "vllm:generation_tokens_total") == 12
    assert _count(readings, "vllm:time_to_first_token_seconds_count") == 2
    assert _count(readings, "vllm:request_queue_time_seconds_count") == 2
    assert _count(readings, "vllm:request_prefill_time_seconds_count") == 2
    assert _count(readings, "vllm:request_decode_time_seconds_count") == 2
    assert readings["console_rejections_total", "m", "invalid_request"] == 1
    assert readings["console_rejections_total", "", "model_not_found"] == 2


def test_buckets_are_cumulative_and_those_of_vllm() -> None:
    totals = Totals()
    for first_token_s in (0.03, 0.04, 0.3, 5_000.0):
        totals.add(replace(PLAIN, first_token_s=first_token_s))
    families = {family.name: family for family in RequestCollector(totals.read(), {}).collect()}
    samples = families["vllm:time_to_first_token_seconds"].samples
    buckets = {sample.labels["le"]: sample.value for sample in samples if sample.name.endswith("_bucket")}
    assert len(buckets) == len(FIRST_TOKEN_BOUNDS_S) + 1
    assert [buckets[bound] for bound in ("0.02", "0.04", "0.25", "0.5", "2560.0", "+Inf")] == [0, 2, 2, 3, 3, 4]
    assert {sample.labels["model_name"] for sample in samples} == {"smol"}


def test_ends_have_vllms_words() -> None:
    totals = Totals()
    for record in (PLAIN, CANCELLED_IN_QUEUE, replace(PLAIN, finish_reason="deadline"), REFUSED):
        totals.add(record)
    families = {family.name: family for family in RequestCollector(totals.read(), {}).collect()}
    ended = {sample.labels["finished_reason"]: sample.value for sample in families["vllm:request_success"].samples}
    assert ended == {"stop": 1, "abort": 1, "error": 1}
