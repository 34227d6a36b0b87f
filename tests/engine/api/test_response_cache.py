"""Answers that are given again, through a real server with the tiny model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from engine.config import Settings
from engine.console import Console, open_console
from engine.models.spec import ModelSpec
from engine.scheduling.quota import Quota
from engine.state.api_keys import Scope
from tests.engine.api.servers import await_ready, build_app, serve
from tests.fakes import wait_until

_CHAT: dict[str, Any] = {
    "model": "tiny",
    "messages": [{"role": "user", "content": "Hello there"}],
    "temperature": 0,
    "max_tokens": 6,
}
_TEXT: dict[str, Any] = {"model": "tiny", "prompt": "Once upon", "temperature": 0, "max_tokens": 6}
_PATHS = (("/v1/chat/completions", _CHAT), ("/v1/completions", _TEXT))


@pytest.fixture(scope="module")
def cached_console(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Console]:
    """The tiny Llama as `tiny`, with room for kept answers."""
    home = tmp_path_factory.mktemp("cached-home")
    settings = Settings(
        home=home, model=str(tiny_folder), model_name="tiny", device="cpu", kv_cache_gib=0.1, response_cache_mib=8
    )
    console = open_console(settings)
    await_ready(console)
    yield console
    console.close()


@pytest.fixture(scope="module")
def cached_url(cached_console: Console) -> Iterator[str]:
    with serve(build_app(cached_console)) as url:
        yield url


@pytest.fixture
def http(cached_console: Console, cached_url: str) -> Iterator[httpx.Client]:
    """A client of a server that keeps nothing yet."""
    cached_console.gateway.cache.clear()
    with httpx.Client(base_url=cached_url, timeout=30) as client:
        yield client


def _events(text: str) -> list[dict[str, Any]]:
    lines = [line.removeprefix("data: ") for line in text.split("\n\n") if line]
    return [json.loads(line) for line in lines if line != "[DONE]"]


def _without_own(event: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in event.items() if name not in ("id", "created")}


def _ask(http: httpx.Client, path: str, body: dict[str, Any], **headers: str) -> httpx.Response:
    answer = http.post(path, json=body, headers=headers)
    assert answer.status_code == 200, answer.text
    return answer


@pytest.mark.parametrize(("path", "body"), _PATHS)
def test_the_second_and_later_answers_are_the_first(http: httpx.Client, path: str, body: dict[str, Any]) -> None:
    """The second is written anew from what was kept, later ones from its bytes."""
    answers = [_ask(http, path, body) for _ in range(4)]
    assert [answer.headers["x-cache"] for answer in answers] == ["MISS", "HIT", "HIT", "HIT"]
    told = [_without_own(answer.json()) for answer in answers]
    assert told[1:] == told[:1] * 3
    assert len({answer.json()["id"] for answer in answers}) == 4
    assert all(answer.headers["x-request-id"] == answer.json()["id"] for answer in answers)
    assert {answer.headers["content-type"] for answer in answers} == {"application/json"}


@pytest.mark.parametrize(("path", "body"), _PATHS)
@pytest.mark.parametrize("options", [{}, {"n": 2, "seed": 5}])
def test_a_streamed_hit_has_the_events_of_the_miss(
    http: httpx.Client, path: str, body: dict[str, Any], options: dict[str, Any]
) -> None:
    streamed = {**body, **options, "stream": True, "stream_options": {"include_usage": True}}
    answers = [_ask(http, path, streamed) for _ in range(3)]
    assert [answer.headers["x-cache"] for answer in answers] == ["MISS", "HIT", "HIT"]
    assert {answer.headers["content-type"] for answer in answers} == {"text/event-stream; charset=utf-8"}
    by_choice = [_by_choice(answer.text) for answer in answers]
    assert by_choice[1:] == by_choice[:1] * 2
    assert all(answer.text.endswith("data: [DONE]\n\n") for answer in answers)


def _by_choice(text: str) -> list[dict[str, Any]]:
    """Choices of one answer interleave as they come."""
    events = [_without_own(event) for event in _events(text)]
    return sorted(events, key=lambda event: [choice["index"] for choice in event["choices"]] or [99])


def test_both_forms_are_served_from_the_same_answer(http: httpx.Client) -> None:
    """The stream flag is no part of the key."""
    whole = _ask(http, *_PATHS[0]).json()["choices"][0]["message"]["content"]
    streamed = _ask(http, "/v1/chat/completions", {**_CHAT, "stream": True, "user": "someone", "metadata": {"a": "b"}})
    assert streamed.headers["x-cache"] == "HIT"
    events = _events(streamed.text)
    assert "".join(event["choices"][0]["delta"].get("content", "") for event in events) == whole


@pytest.mark.parametrize("directive", ["no-cache", "no-store", "max-age=0, No-Cache"])
def test_a_client_may_refuse_kept_answers(http: httpx.Client, directive: str) -> None:
    for _ in range(3):
        _ask(http, *_PATHS[0])
    assert _ask(http, *_PATHS[0], **{"cache-control": directive}).headers["x-cache"] == "BYPASS"


def test_a_bypass_keeps_nothing(http: httpx.Client) -> None:
    _ask(http, *_PATHS[0], **{"cache-control": "no-store"})
    assert _ask(http, *_PATHS[0]).headers["x-cache"] == "MISS"


@pytest.mark.parametrize("options", [{}, {"n": 2}])
def test_what_asks_for_no_particular_answer_is_not_looked_up(
    cached_console: Console, http: httpx.Client, options: dict[str, Any]
) -> None:
    """Seeds that are drawn for several choices are no seed that was sent."""
    free = {**_CHAT, "temperature": 1, **options}
    assert [_ask(http, "/v1/chat/completions", free).headers["x-cache"] for _ in range(2)] == ["BYPASS"] * 2
    assert cached_console.gateway.cache.figures().num_entries == 0


def test_the_seed_that_was_sent_is_answered(http: httpx.Client) -> None:
    """Greedy answers share an entry whatever the seed."""
    seeds = [_ask(http, "/v1/chat/completions", {**_CHAT, "seed": seed}).json()["seed"] for seed in (3, 4, 4, 4)]
    assert seeds == [3, 4, 4, 4]


def test_a_refused_request_is_refused_again(http: httpx.Client) -> None:
    wrong = {**_CHAT, "top_p": 7}
    answers = [http.post("/v1/chat/completions", json=wrong) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [400] * 3
    assert _ask(http, *_PATHS[0]).headers["x-cache"] == "MISS"


def test_hits_leave_records_that_took_no_tokens(cached_console: Console, http: httpx.Client) -> None:
    ids = [f"kept-{number}" for number in range(3)]
    for request_id in ids:
        _ask(http, *_PATHS[0], **{"x-request-id": request_id})

    def are_kept() -> bool:
        cached_console.records.flush()
        return {*ids} <= {record.request_id for record in cached_console.records.recent()}

    wait_until(are_kept)
    records = {record.request_id: record for record in cached_console.records.recent()}
    first, *hits = (records[one] for one in ids)
    assert (first.source, first.num_output_tokens) == ("api", 6)
    for hit in hits:
        assert (hit.source, hit.model, hit.status) == ("cache", "tiny", "successful")
        assert (hit.num_prompt_tokens, hit.num_output_tokens, hit.ttft_s, hit.queue_s) == (0, 0, None, None)
        assert hit.e2e_s >= 0


def test_another_version_behind_the_name_answers_anew(
    tiny_folder: Path, cached_console: Console, http: httpx.Client
) -> None:
    for _ in range(3):
        _ask(http, *_PATHS[0])
    before = cached_console.engine.generations()["tiny"]
    cached_console.engine.swap("tiny", ModelSpec(str(tiny_folder), device="cpu"), 5.0)
    wait_until(lambda: cached_console.engine.generations()["tiny"] not in (before, None), 60)
    assert _ask(http, *_PATHS[0]).headers["x-cache"] == "MISS"
    assert _ask(http, *_PATHS[0]).headers["x-cache"] == "HIT"


def test_figures_are_told_and_cleared(cached_console: Console, http: httpx.Client) -> None:
    before = cached_console.gateway.cache.figures()
    for _ in range(3):
        _ask(http, *_PATHS[0])
    told = http.get("/admin/cache/responses").json()
    assert told["num_hits"] - before.num_hits == 2
    assert told["num_misses"] - before.num_misses == 1
    assert told["saved_s"] > before.saved_s
    assert told["num_entries"] == 1
    assert 0 < told["size_bytes"] < told["max_bytes"]
    scraped = http.get("/metrics").text
    assert f'console_response_cache_requests_total{{result="hit"}} {float(told["num_hits"])}' in scraped
    assert "console_response_cache_entries 1.0" in scraped
    assert http.delete("/admin/cache/responses").status_code == 204
    cleared = http.get("/admin/cache").json()["responses"]
    assert (cleared["num_entries"], cleared["size_bytes"], cleared["num_hits"]) == (0, 0, told["num_hits"])
    assert _ask(http, *_PATHS[0]).headers["x-cache"] == "MISS"


def test_no_key_sees_what_another_ones_request_put_in(cached_console: Console, http: httpx.Client) -> None:
    """Last in this file: from the first key on, one is needed. A quota holds for hits too; they take no tokens."""
    keys = cached_console.keys
    first, second = (keys.create(name, [Scope.INFERENCE]) for name in ("first", "second"))
    limited = keys.create("limited", [Scope.INFERENCE], Quota(requests_per_minute=3, tokens_per_minute=60))

    def ask(secret: str) -> httpx.Response:
        return http.post("/v1/chat/completions", json=_CHAT, headers={"authorization": f"Bearer {secret}"})

    try:
        told = [ask(key.secret).headers["x-cache"] for key in (first, first, first, second, second)]
        assert told == ["MISS", "HIT", "HIT", "MISS", "HIT"]
        answers = [ask(limited.secret) for _ in range(4)]
        assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
        left = [answer.headers["x-ratelimit-remaining-tokens"] for answer in answers[1:3]]
        assert left[0] <= left[1]
        keys.revoke(first.key.id)
        assert ask(first.secret).status_code == 401
    finally:
        for key in keys.list():
            if key.revoked_at_s is None:
                keys.revoke(key.id)


def test_rows_of_a_batch_may_be_answered_from_it(cached_console: Console, cached_url: str, http: httpx.Client) -> None:
    """They come without a key of their own: the batch's key counts."""
    made = cached_console.keys.create("farm", {Scope.INFERENCE})
    row = {"method": "POST", "url": "/v1/chat/completions", "body": _CHAT}
    rows = "".join(json.dumps({"custom_id": f"row-{index}", **row}) + "\n" for index in range(40))
    try:
        with openai.OpenAI(base_url=f"{cached_url}/v1", api_key=made.secret, max_retries=0, timeout=30) as client:
            file = client.files.create(file=("rows.jsonl", rows.encode()), purpose="batch")
            batch = client.batches.create(
                input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
            )
            wait_until(lambda: client.batches.retrieve(batch.id).status == "completed", 60)
            counts = client.batches.retrieve(batch.id).request_counts
    finally:
        cached_console.keys.revoke(made.key.id)
    assert counts is not None
    assert (counts.completed, counts.failed) == (40, 0)
