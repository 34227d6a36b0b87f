"""The overview, on a console of fakes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dashboard.components.formats import format_bytes
from dashboard.components.host_cards import memory_used
from engine import Console, InstanceState, Message, Request
from engine.errors import StoreError, WeightsError
from engine.latency import RecordFilter
from tests.engine.latency.builders import CANCELLED_IN_QUEUE
from tests.fakes import FakeBackend, wait_until
from tests.pages.conftest import OpenPage, keep, load, recent, texts
from tests.pages.environment import FakeChecks

PLAYGROUND = "Open the playground"


def labels(page: object) -> list[str]:
    return [button.label for button in page.button]  # type: ignore[attr-defined]


def value_of(page: object, label: str) -> str:
    return next(str(metric.value) for metric in page.metric if metric.label == label)  # type: ignore[attr-defined]


def test_empty_console_says_what_to_do_and_shows_dashes(console: Console, open_page: OpenPage) -> None:
    console.sampler.close()
    last = console.sampler.latest()
    assert last is not None
    page = open_page("overview")
    assert "Load one on the Models page" in page.info[0].value
    assert PLAYGROUND not in labels(page)
    assert value_of(page, "TTFT P95") == "–"
    assert [metric.delta for metric in page.metric if metric.label.endswith("P95")] == ["No data"] * 3
    assert "No request is running" in texts(page)
    assert "not checked yet" in texts(page)
    assert value_of(page, "Memory used") == format_bytes(memory_used(last))
    assert not page.error


def test_ready_model_opens_the_way_to_the_playground(console: Console, open_page: OpenPage) -> None:
    load(console, "phone")
    page = open_page("overview")
    assert PLAYGROUND in labels(page)
    assert "**phone**" in texts(page)
    assert "ready" in texts(page)
    assert value_of(page, "Running") == "0 / 16"


def test_loading_model_shows_its_progress(console: Console, backend: FakeBackend, open_page: OpenPage) -> None:
    backend.load_gate.clear()
    load(console, "phone", InstanceState.LOADING)
    wait_until(lambda: console.engine.instances()[0].progress is not None)
    page = open_page("overview")
    assert page.get("progress")[0].proto.value == 50
    assert page.get("progress")[0].proto.text.startswith("loading weights 50%")
    assert PLAYGROUND not in labels(page)
    backend.load_gate.set()


def test_failed_model_shows_its_reason(console: Console, backend: FakeBackend, open_page: OpenPage) -> None:
    backend.load_error = WeightsError("model_1.safetensors is cut short")
    load(console, "phone", InstanceState.FAILED)
    page = open_page("overview")
    assert page.error[0].value == r"model\_1.safetensors is cut short"


def test_dead_worker_shows_when_it_starts_again(console: Console, backend: FakeBackend, open_page: OpenPage) -> None:
    load(console, "phone")
    backend.errors.append(MemoryError("no more"))
    wait_until(lambda: console.engine.instances()[0].state is InstanceState.FAILED)
    page = open_page("overview")
    assert "no more" in page.error[0].value
    assert "tries again" in page.error[0].value


def test_objectives_are_judged_on_the_last_hour_of_successful_requests(console: Console, open_page: OpenPage) -> None:
    late = recent(console, age_s=4_000, request_id="old", first_token_s=50.0)
    unlucky = replace(CANCELLED_IN_QUEUE, received_at_s=console.clock.wall() - 10, finished_s=500.0)
    slow_tokens = recent(console, last_token_s=60.0, finished_s=60.0)
    keep(console, late, unlucky, recent(console, request_id="other"), slow_tokens)
    page = open_page("overview")
    judged = {metric.label: (metric.value, metric.delta) for metric in page.metric if metric.label.endswith("P95")}
    assert judged["TTFT P95"] == ("250 ms", "Met")
    assert judged["TPOT P95"][1] == "Missed"
    assert judged["E2E P95"] == ("57.1 s", "Missed")
    assert "Over 2 requests" in next(metric.help for metric in page.metric if metric.label == "TTFT P95")


def test_request_in_flight_can_be_cancelled(console: Console, backend: FakeBackend, open_page: OpenPage) -> None:
    load(console, "phone")
    backend.gate.clear()
    stream = console.engine.stream(Request("phone", (Message("user", "one two three"),), source="api"))
    page = open_page("overview")
    assert "3 in · 0 out" in texts(page)
    page.button(key=f"cancel-{stream.request_id}").click().run()
    wait_until(lambda: stream.finished is not None)
    assert stream.finished is not None
    assert stream.finished.reason == "cancelled"
    assert "No request is running" in texts(page.run())


def test_unreadable_history_is_one_message(
    console: Console, open_page: OpenPage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: RecordFilter) -> None:
        raise StoreError("Request history cannot be read.")

    monkeypatch.setattr(console.records, "summarize", refuse)
    page = open_page("overview")
    assert [error.value for error in page.error] == ["Request history cannot be read."]
    assert value_of(page, "CPU")


def test_check_now_takes_a_report(console: Console, open_page: OpenPage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.environment.report.FAMILIES", FakeChecks().families)
    page = open_page("overview")
    assert "not checked yet" in texts(page)
    next(button for button in page.button if button.label == "Check now").click().run()
    console.environment.wait(10)
    page.run()
    assert "Not fit: a check failed" in texts(page)
    assert "just now" in texts(page)


def test_every_detail_page_is_linked(open_page: OpenPage) -> None:
    page = open_page("overview")
    assert {link.proto.page for link in page.get("page_link")} >= {"models", "playground", "latency", "telemetry"}
