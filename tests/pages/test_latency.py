"""The latency page over a tiny store."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from streamlit.testing.v1 import AppTest

from engine import Console
from engine.errors import StoreError
from engine.latency import Status
from tests.engine.latency.builders import CANCELLED_IN_QUEUE
from tests.pages.conftest import OpenPage, keep, recent, texts


def rows(page: AppTest) -> dict[str, dict[str, str]]:
    """The table of percentiles by latency, its spaces plain."""
    frame = page.table[0].value
    return {
        row["Latency"].strip("*"): {key: value.replace("\N{NO-BREAK SPACE}", " ") for key, value in row.items()}
        for row in frame.to_dict("records")
    }


def figure(page: AppTest) -> dict[str, object]:
    return json.loads(page.get("plotly_chart")[0].proto.spec)  # type: ignore[no-any-return]


def test_empty_store_says_what_to_do(open_page: OpenPage) -> None:
    page = open_page("latency")
    assert "ask the model something" in page.info[0].value
    assert not page.table
    assert "Time to first token" in texts(page)


def test_percentiles_counts_and_objectives(console: Console, open_page: OpenPage) -> None:
    ttfts_s = (0.1, 0.2, 0.3, 0.4, 0.5)
    keep(console, *(recent(console, request_id=f"r{ttft_s}", first_token_s=ttft_s) for ttft_s in ttfts_s))
    keep(console, replace(CANCELLED_IN_QUEUE, received_at_s=console.clock.wall() - 5))
    page = open_page("latency")
    found = rows(page)
    assert found["TTFT"]["P50"] == "300 ms"
    assert found["TTFT"]["P95"] == "480 ms"
    assert found["TTFT"]["P99"] == "496 ms"
    assert found["TTFT"]["Max"] == "500 ms"
    assert found["TTFT"]["Requests"] == "5"
    assert "met" in found["TTFT"]["P95 objective"]
    assert found["Queue"]["P95 objective"] == "–"
    assert "5 successful" in texts(page)
    assert "1 cancelled" in texts(page)
    assert "60 tokens in · 55 tokens out" in texts(page)


def test_missing_latency_is_a_dash(console: Console, open_page: OpenPage) -> None:
    keep(console, replace(CANCELLED_IN_QUEUE, received_at_s=console.clock.wall() - 5))
    found = rows(open_page("latency", status="cancelled"))
    assert found["TTFT"]["P95"] == "–"
    assert "no data" in found["TTFT"]["P95 objective"]
    assert found["E2E"]["P95"] == "500 ms"


def test_status_without_a_record_names_those_that_have_some(console: Console, open_page: OpenPage) -> None:
    keep(console, recent(console))
    page = open_page("latency", status="errored")
    assert "1 successful" in page.info[0].value


def test_filters_come_from_the_url(console: Console, open_page: OpenPage) -> None:
    keep(
        console,
        recent(console, age_s=7_200, request_id="old", model="phone", first_token_s=0.9),
        recent(console, model="phone", source="playground", request_id="fits", first_token_s=0.7),
        recent(console, model="smol", source="playground", request_id="other-model"),
        recent(console, model="phone", source="api", request_id="other-source"),
    )
    page = open_page("latency", range="15 min", model=["phone"], source="playground")
    assert rows(page)["TTFT"]["Requests"] == "1"
    assert rows(page)["TTFT"]["P95"] == "700 ms"
    page = open_page("latency", range="All", model=["phone"])
    assert rows(page)["TTFT"]["Requests"] == "3"


def test_every_control_is_bound_to_the_url(console: Console, open_page: OpenPage) -> None:
    keep(console, recent(console))
    page = open_page("latency", live="true", range="24 h", metric="E2E")
    assert page.toggle(key="live").value
    assert page.segmented_control(key="range").value == "24 h"
    assert page.segmented_control(key="metric").value == "E2E"
    controls = [*page.segmented_control, *page.pills, *page.multiselect, *page.selectbox, *page.toggle]
    assert {control.proto.query_param_key for control in controls} == {control.key for control in controls}
    assert {control.key for control in controls} == {
        "range", "status", "model", "source", "live", "view", "metric"
    }  # fmt: skip


def test_series_shows_three_percentiles_and_counts(console: Console, open_page: OpenPage) -> None:
    keep(console, recent(console), recent(console, request_id="two", first_token_s=0.75))
    drawn = figure(open_page("latency"))
    assert [trace["name"] for trace in drawn["data"]] == ["P50", "P95", "P99", "requests"]
    assert drawn["layout"]["yaxis"]["title"]["text"] == "TTFT (ms)"


def test_distribution_is_of_the_chosen_latency(console: Console, open_page: OpenPage) -> None:
    keep(console, recent(console), recent(console, request_id="two", finished_s=3.0))
    drawn = figure(open_page("latency", view="Distribution", metric="E2E"))
    assert drawn["layout"]["xaxis"]["type"] == "log"
    assert drawn["layout"]["xaxis"]["title"]["text"] == "E2E"


def test_requests_newest_first_with_a_breakdown(console: Console, open_page: OpenPage) -> None:
    keep(console, recent(console, age_s=90, request_id="older"), recent(console, age_s=30, request_id="newer"))
    page = open_page("latency", view="Requests")
    assert list(page.dataframe[0].value["TTFT"]) == [250.0, 250.0]
    assert "**newer**" in texts(page)
    assert [trace["name"].split()[0] for trace in figure(page)["data"]] == ["queue", "prefill", "decode", "finish"]


def test_chosen_request_comes_from_the_url(console: Console, open_page: OpenPage) -> None:
    failed = recent(
        console, age_s=90, request_id="older", status=Status.ERRORED, finish_reason="error", error="the worker died"
    )
    keep(console, failed, recent(console, age_s=30, request_id="newer"))
    page = open_page("latency", view="Requests", request="older", status=[])
    page.pills(key="status").set_value([]).run()
    assert "**older**" in texts(page)
    assert "the worker died" in texts(page)


def test_what_is_not_shown_is_not_asked(console: Console, open_page: OpenPage, monkeypatch: pytest.MonkeyPatch) -> None:
    keep(console, recent(console))
    asked: list[str] = []
    for name in ("series", "distribution", "recent"):
        real = getattr(console.records, name)
        monkeypatch.setattr(
            console.records, name, lambda *args, name=name, real=real: asked.append(name) or real(*args)
        )
    open_page("latency", view="Distribution")
    assert set(asked) == {"distribution"}
    asked.clear()
    open_page("latency", view="Requests")
    assert set(asked) == {"recent"}


@pytest.mark.parametrize("method", ["models", "summarize", "series"])
def test_unreadable_history_is_one_message(
    console: Console, open_page: OpenPage, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    def refuse(*_: object) -> None:
        raise StoreError("Request history cannot be read.")

    keep(console, recent(console))
    monkeypatch.setattr(console.records, method, refuse)
    page = open_page("latency")
    assert [error.value for error in page.error] == ["Request history cannot be read."]
