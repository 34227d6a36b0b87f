from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from openai.types import Batch, FileObject
from pydantic import SecretStr
from starlette.applications import Starlette

from engine.config import Settings
from engine.console import Console
from engine.scheduling.quota import Quota
from engine.state.api_keys import Scope
from tests.engine.api.servers import await_records, build_app, call, fake_console, load_ready, serve
from tests.fakes import FakeBackend, wait_until

_CHAT = "/v1/chat/completions"
_ANSWER = "The capital of France is Paris."


def _row(custom_id: str, url: str = _CHAT, model: str = "m", **body: Any) -> dict[str, Any]:
    fields = {"messages": [{"role": "user", "content": "What is it?"}]} if url == _CHAT else {}
    return {"custom_id": custom_id, "method": "POST", "url": url, "body": {"model": model, **fields, **body}}


def _jsonl(rows: Iterable[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def _upload(client: openai.OpenAI, rows: Iterable[dict[str, Any]]) -> FileObject:
    return client.files.create(file=("rows.jsonl", _jsonl(rows)), purpose="batch")


def _begin(client: openai.OpenAI, rows: Iterable[dict[str, Any]], endpoint: Any = _CHAT, **fields: Any) -> Batch:
    file = _upload(client, rows)
    return client.batches.create(input_file_id=file.id, endpoint=endpoint, completion_window="24h", **fields)


def _await(client: openai.OpenAI, batch: Batch, *statuses: str) -> Batch:
    found: list[Batch] = []

    def has_come_to() -> bool:
        found.append(client.batches.retrieve(batch.id))
        return found[-1].status in (statuses or ("completed", "failed", "expired", "cancelled"))

    wait_until(has_come_to, 60)
    return found[-1]


def _lines(client: openai.OpenAI, file_id: str | None) -> list[dict[str, Any]]:
    return [] if file_id is None else [json.loads(line) for line in client.files.content(file_id).text.splitlines()]


@pytest.fixture
def fake(app: Starlette) -> Iterator[openai.OpenAI]:
    """OpenAI's client for a server over the fake model `m`."""
    with serve(app) as url, openai.OpenAI(base_url=f"{url}/v1", api_key="unused", max_retries=0, timeout=30) as one:
        yield one


def test_a_batch_from_upload_to_download(client: openai.OpenAI) -> None:
    rows = [_row(f"row-{index}", model="tiny", max_tokens=4, seed=index) for index in range(20)]
    batch = _begin(client, rows, metadata={"night": "job"})
    assert (batch.object, batch.endpoint, batch.completion_window) == ("batch", _CHAT, "24h")
    assert batch.expires_at == batch.created_at + 86_400
    done = _await(client, batch)
    assert done.status == "completed", done
    assert done.request_counts is not None
    assert (done.request_counts.total, done.request_counts.completed, done.request_counts.failed) == (20, 20, 0)
    assert (done.model, done.metadata, done.errors, done.error_file_id) == ("tiny", {"night": "job"}, None, None)
    assert done.in_progress_at is not None
    assert done.finalizing_at is not None
    assert done.completed_at is not None
    lines = _lines(client, done.output_file_id)
    assert {line["custom_id"] for line in lines} == {row["custom_id"] for row in rows}
    assert len(lines) == len(rows)
    assert len({line["id"] for line in lines}) == len(rows)
    for line in lines:
        assert (line["error"], line["response"]["status_code"]) == (None, 200)
        assert line["response"]["request_id"] == line["response"]["body"]["id"]
        assert line["response"]["body"]["seed"] == int(line["custom_id"].removeprefix("row-"))


def test_a_row_has_the_answer_that_a_request_has(client: openai.OpenAI) -> None:
    asked: dict[str, Any] = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 8, "seed": 3}
    expected = client.chat.completions.create(model="tiny", **asked).choices[0].message.content
    done = _await(client, _begin(client, [_row("a", model="tiny", **asked)]))
    (line,) = _lines(client, done.output_file_id)
    assert line["response"]["body"]["choices"][0]["message"]["content"] == expected


@pytest.mark.parametrize(
    ("endpoint", "body", "kind"),
    [
        ("/v1/completions", {"prompt": "Once", "max_tokens": 3}, "text_completion"),
        ("/v1/embeddings", {"input": ["a", "b"]}, "list"),
    ],
)
def test_the_other_endpoints(client: openai.OpenAI, endpoint: str, body: dict[str, Any], kind: str) -> None:
    done = _await(client, _begin(client, [_row("a", endpoint, "tiny", **body)], endpoint))
    (line,) = _lines(client, done.output_file_id)
    assert line["response"]["body"]["object"] == kind


def test_a_row_that_the_endpoint_refuses_is_an_error_of_its_own(fake: openai.OpenAI) -> None:
    done = _await(fake, _begin(fake, [_row("good"), _row("bad", temperature=9), _row("odd", nonsense=1)]))
    assert done.status == "completed"
    assert [line["custom_id"] for line in _lines(fake, done.output_file_id)] == ["good"]
    bad = {line["custom_id"]: line["response"] for line in _lines(fake, done.error_file_id)}
    assert {name: response["status_code"] for name, response in bad.items()} == {"bad": 400, "odd": 400}
    assert bad["bad"]["body"]["error"]["param"] == "temperature"
    assert bad["odd"]["body"]["error"]["param"] == "nonsense"


def test_bad_lines_are_named_and_nothing_is_run(fake: openai.OpenAI, console: Console) -> None:
    content = b"\n".join(
        [
            json.dumps(_row("a")).encode(),
            b"{not json",
            json.dumps(_row("a")).encode(),
            b"",
            json.dumps(_row("b", model="nobody")).encode(),
            json.dumps({**_row("c"), "url": "/v1/embeddings"}).encode(),
        ]
    )
    file = fake.files.create(file=("rows.jsonl", content), purpose="batch")
    batch = fake.batches.create(input_file_id=file.id, endpoint=_CHAT, completion_window="24h")
    failed = _await(fake, batch)
    assert failed.status == "failed"
    assert failed.failed_at is not None
    assert failed.errors is not None
    assert failed.errors.data is not None
    told = [(error.line, error.code) for error in failed.errors.data]
    assert told == [
        (2, "invalid_json_line"),
        (3, "duplicate_custom_id"),
        (5, "model_not_found"),
        (6, "invalid_url"),
    ]
    assert (failed.output_file_id, failed.error_file_id) == (None, None)
    assert await_records(console, 0) == ()


def test_rows_are_recorded_as_those_of_a_batch(fake: openai.OpenAI, console: Console, backend: FakeBackend) -> None:
    backend.gate.clear()
    batch = _begin(fake, [_row("a")])
    wait_until(lambda: len(console.engine.requests()) == 1)
    assert [request.source for request in console.engine.requests()] == ["batch"]
    backend.gate.set()
    done = _await(fake, batch)
    (record,) = await_records(console, 1)
    (line,) = _lines(fake, done.output_file_id)
    assert (record.source, record.request_id) == ("batch", line["response"]["request_id"])


def test_cancelling_keeps_what_is_done(fake: openai.OpenAI, console: Console, backend: FakeBackend) -> None:
    rows = [_row(f"row-{index}") for index in range(500)]
    batch = _begin(fake, rows)
    wait_until(lambda: console.batches.get(batch.id, None).counts.completed > 0)
    backend.gate.clear()
    wait_until(lambda: len(console.engine.requests()) == console.batches.num_in_flight)
    assert fake.batches.cancel(batch.id).status == "cancelling"
    wait_until(lambda: console.engine.requests() == ())
    ended = _await(fake, batch, "cancelled")
    lines = _lines(fake, ended.output_file_id)
    assert ended.request_counts is not None
    assert 0 < ended.request_counts.completed == len(lines) < len(rows)
    assert ended.error_file_id is None
    assert ended.cancelled_at is not None
    with pytest.raises(openai.ConflictError):
        fake.batches.cancel(batch.id)


def test_cancelling_twice_is_as_once(fake: openai.OpenAI, console: Console, backend: FakeBackend) -> None:
    backend.gate.clear()
    batch = _begin(fake, [_row("a")])
    wait_until(lambda: len(console.engine.requests()) == 1)
    fake.batches.cancel(batch.id)
    assert _await(fake, batch).status == "cancelled"
    with pytest.raises(openai.ConflictError) as raised:
        fake.batches.cancel(batch.id)
    assert raised.value.code == "batch_ended"


def test_a_full_queue_is_waited_for(fake: openai.OpenAI, backend: FakeBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.batches.runner._LONGEST_PAUSE_S", 0.01)
    backend.max_requests = 2
    done = _await(fake, _begin(fake, [_row(f"row-{index}") for index in range(30)]))
    assert done.request_counts is not None
    assert (done.status, done.request_counts.completed) == ("completed", 30)


def test_a_model_that_is_unloaded_is_waited_for(
    fake: openai.OpenAI, console: Console, backend: FakeBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.batches.runner._LONGEST_PAUSE_S", 0.01)
    backend.gate.clear()
    batch = _begin(fake, [_row("a")])
    wait_until(lambda: len(console.engine.requests()) == 1)
    console.engine.unload("m")
    wait_until(lambda: "no model named 'm'" in (console.batches.get(batch.id, None).held_up or ""))
    backend.gate.set()
    load_ready(console)
    assert _await(fake, batch).status == "completed"


def test_lists_are_paged_newest_first(fake: openai.OpenAI) -> None:
    made = [_begin(fake, [_row("a")]).id for _ in range(5)]
    assert [batch.id for batch in fake.batches.list(limit=2)] == made[::-1]
    page = fake.batches.list(limit=2)
    assert (page.has_more, [batch.id for batch in page.data]) == (True, made[:-3:-1])
    with pytest.raises(openai.NotFoundError):
        fake.batches.list(after="batch_none")


def test_what_a_batch_is_made_of_is_checked(fake: openai.OpenAI) -> None:
    file = _upload(fake, [_row("a")])
    with pytest.raises(openai.NotFoundError) as missing:
        fake.batches.create(input_file_id="file-none", endpoint=_CHAT, completion_window="24h")
    assert missing.value.code == "file_not_found"
    with pytest.raises(openai.BadRequestError, match="endpoint"):
        fake.batches.create(input_file_id=file.id, endpoint="/v1/responses", completion_window="24h")
    with pytest.raises(openai.BadRequestError, match="completion_window"):
        fake.batches.create(input_file_id=file.id, endpoint=_CHAT, completion_window="1h")  # type: ignore[arg-type]
    with pytest.raises(openai.BadRequestError, match="metadata"):
        fake.batches.create(input_file_id=file.id, endpoint=_CHAT, completion_window="24h", metadata={"key": "x" * 513})
    done = _await(fake, fake.batches.create(input_file_id=file.id, endpoint=_CHAT, completion_window="24h"))
    with pytest.raises(openai.BadRequestError, match="batch_output"):
        fake.batches.create(input_file_id=str(done.output_file_id), endpoint=_CHAT, completion_window="24h")


def test_a_key_has_a_bounded_number_of_batches_under_way(
    fake: openai.OpenAI, backend: FakeBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.batches.batches.MAX_OPEN", 1)
    backend.gate.clear()
    first = _begin(fake, [_row("a")])
    with pytest.raises(openai.RateLimitError) as raised:
        _begin(fake, [_row("a")])
    assert raised.value.code == "too_many_batches"
    backend.gate.set()
    _await(fake, first)
    _await(fake, _begin(fake, [_row("a")]))


def test_a_file_that_is_read_stays(fake: openai.OpenAI, backend: FakeBackend) -> None:
    backend.gate.clear()
    batch = _begin(fake, [_row("a")])
    with pytest.raises(openai.ConflictError) as raised:
        fake.files.delete(batch.input_file_id)
    assert raised.value.code == "file_in_use"
    backend.gate.set()
    _await(fake, batch)
    assert fake.files.delete(batch.input_file_id).deleted


@pytest.fixture
def guarded(tmp_path: Path, backend: FakeBackend) -> Iterator[Console]:
    """A console with the fake model `m` and a key in the settings."""
    with fake_console(Settings(home=tmp_path, api_keys=(SecretStr("first"),)), backend) as one:
        load_ready(one)
        yield one


@pytest.fixture
def guarded_url(guarded: Console) -> Iterator[str]:
    with serve(build_app(guarded)) as url:
        yield f"{url}/v1"


def test_keys_do_not_see_each_other_s(guarded: Console, guarded_url: str) -> None:
    secret = guarded.keys.create("second", [Scope.INFERENCE]).secret
    with (
        openai.OpenAI(base_url=guarded_url, api_key="first", max_retries=0) as first,
        openai.OpenAI(base_url=guarded_url, api_key=secret, max_retries=0) as second,
        openai.OpenAI(base_url=guarded_url, api_key="none", max_retries=0) as nobody,
    ):
        done = _await(first, _begin(first, [_row("a")]))
        assert (done.status, len(_lines(first, done.output_file_id))) == ("completed", 1)
        for file_id in (done.input_file_id, str(done.output_file_id)):
            for ask in (second.files.retrieve, second.files.content, second.files.delete):
                with pytest.raises(openai.NotFoundError):
                    ask(file_id)
        for of_batch in (second.batches.retrieve, second.batches.cancel):
            with pytest.raises(openai.NotFoundError):
                of_batch(done.id)
        with pytest.raises(openai.NotFoundError):
            second.batches.create(input_file_id=done.input_file_id, endpoint=_CHAT, completion_window="24h")
        assert (second.files.list().data, second.batches.list().data) == ([], [])
        assert [file.id for file in first.files.list()] == [done.output_file_id, done.input_file_id]
        for unknown in (nobody.files.list, nobody.batches.list):
            with pytest.raises(openai.AuthenticationError):
                unknown()


def test_the_quota_of_the_key_is_waited_for(
    guarded: Console, guarded_url: str, backend: FakeBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.batches.runner._LONGEST_PAUSE_S", 0.01)
    backend.gate.clear()
    made = guarded.keys.create("slow", [Scope.INFERENCE], Quota(concurrent_requests=2))
    with openai.OpenAI(base_url=guarded_url, api_key=made.secret, max_retries=0) as slow:
        batch = _begin(slow, [_row(f"row-{index}") for index in range(6)])
        wait_until(lambda: "concurrent_requests" in (guarded.batches.get(batch.id, made.key.id).held_up or ""))
        assert len(guarded.engine.requests()) == 2
        assert {request.key_id for request in guarded.engine.requests()} == {made.key.id}
        backend.gate.set()
        done = _await(slow, batch)
    assert done.request_counts is not None
    assert (done.request_counts.completed, done.request_counts.failed) == (6, 0)


def test_rows_after_the_key_was_revoked_are_refused(guarded: Console, guarded_url: str, backend: FakeBackend) -> None:
    made = guarded.keys.create("short", [Scope.INFERENCE])
    backend.gate.clear()
    with openai.OpenAI(base_url=guarded_url, api_key=made.secret, max_retries=0) as short:
        batch = _begin(short, [_row(f"row-{index}") for index in range(guarded.batches.num_in_flight + 3)])
        wait_until(lambda: len(guarded.engine.requests()) == guarded.batches.num_in_flight)
    guarded.keys.revoke(made.key.id)
    backend.gate.set()
    wait_until(lambda: not guarded.batches.get(batch.id, made.key.id).is_open)
    ended = guarded.batches.get(batch.id, made.key.id)
    assert (ended.counts.completed, ended.counts.failed) == (guarded.batches.num_in_flight, 3)
    lines = guarded.batches.files.path(ended.error_file_id).read_text().splitlines()
    assert {json.loads(line)["response"]["status_code"] for line in lines} == {401}


def test_a_console_that_stops_goes_on_when_it_starts_again(tmp_path: Path) -> None:
    rows = [_row(f"row-{index}") for index in range(12)]
    first = FakeBackend()
    with fake_console(Settings(home=tmp_path, max_running=16), first) as console:
        load_ready(console)
        app = build_app(console)
        first.gate.clear()
        file = call(app, "POST", "/v1/files", data={"purpose": "batch"}, files={"file": ("rows", _jsonl(rows))}).json()
        wanted = {"input_file_id": file["id"], "endpoint": _CHAT, "completion_window": "24h"}
        batch = call(app, "POST", "/v1/batches", json=wanted).json()
        wait_until(lambda: len(console.engine.requests()) == console.batches.num_in_flight)
    with fake_console(Settings(home=tmp_path), FakeBackend()) as console:
        assert console.batches.get(batch["id"], None).is_open
        load_ready(console)
        app = build_app(console)
        wait_until(lambda: not console.batches.get(batch["id"], None).is_open)
        ended = call(app, "GET", f"/v1/batches/{batch['id']}").json()
        assert ended["status"] == "completed"
        content = call(app, "GET", f"/v1/files/{ended['output_file_id']}/content").text
        assert sorted(json.loads(line)["custom_id"] for line in content.splitlines()) == sorted(
            str(row["custom_id"]) for row in rows
        )


def test_two_consoles_do_not_run_the_same_rows(console: Console, app: Starlette, tmp_path: Path) -> None:
    with fake_console(Settings(home=tmp_path), FakeBackend()) as other:
        load_ready(other)
        second = build_app(other)
        file = call(second, "POST", "/v1/files", data={"purpose": "batch"}, files={"file": _jsonl([_row("a")])}).json()
        wanted = {"input_file_id": file["id"], "endpoint": _CHAT, "completion_window": "24h"}
        response = call(second, "POST", "/v1/batches", json=wanted)
    assert (response.status_code, response.json()["error"]["code"]) == (503, "batches_unavailable")


def test_rows_are_sent_at_the_lowest_priority(
    fake: openai.OpenAI, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    priorities: list[int] = []
    stream = console.gateway.stream
    monkeypatch.setattr(
        console.gateway, "stream", lambda request: priorities.append(request.priority) or stream(request)
    )
    _await(fake, _begin(fake, [_row("a")]))
    assert priorities == [-10]
