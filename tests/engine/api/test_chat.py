from __future__ import annotations

import asyncio
import json
import socket
from contextlib import suppress
from typing import Any

import httpx
import openai
import pytest
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect

from engine.console import Console
from engine.errors import WorkerDiedError
from tests.engine.api.servers import await_ready, build_app, call, serve
from tests.fakes import FakeBackend, fake_spec, wait_until

_PATH = "/v1/chat/completions"
_ANSWER = "The capital of France is Paris."
_QUESTION: Any = [{"role": "user", "content": "What is the capital of France?"}]
_NO_END: Any = {"257": -100}


def _body(**fields: Any) -> dict[str, Any]:
    return {"model": "m", "messages": _QUESTION, **fields}


def _ask(app: Starlette, **fields: Any) -> httpx.Response:
    return call(app, "POST", _PATH, json=_body(**fields))


def _events(response: httpx.Response) -> list[Any]:
    lines = [line for line in response.text.split("\n\n") if line]
    assert all(line.startswith("data: ") for line in lines)
    assert lines[-1] == "data: [DONE]"
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]


def test_a_whole_answer(app: Starlette) -> None:
    response = _ask(app, seed=5)
    assert response.status_code == 200
    answer = response.json()
    assert answer["object"] == "chat.completion"
    assert answer["model"] == "m"
    assert answer["seed"] == 5
    assert answer["choices"] == [
        {
            "index": 0,
            "message": {"role": "assistant", "content": _ANSWER, "refusal": None},
            "logprobs": None,
            "finish_reason": "stop",
        }
    ]
    assert answer["usage"] == {
        "prompt_tokens": 6,
        "completion_tokens": 6,
        "total_tokens": 12,
        "prompt_tokens_details": {"cached_tokens": 0},
    }
    assert response.headers["x-request-id"] == answer["id"]


def test_a_stream(app: Starlette) -> None:
    response = _ask(app, stream=True)
    assert response.headers["content-type"].startswith("text/event-stream")
    events = _events(response)
    assert {event["object"] for event in events} == {"chat.completion.chunk"}
    assert {event["id"] for event in events} == {response.headers["x-request-id"]}
    deltas = [event["choices"][0]["delta"] for event in events]
    assert deltas[0] == {"role": "assistant", "content": ""}
    assert "".join(delta.get("content", "") for delta in deltas) == _ANSWER
    assert [event["choices"][0]["finish_reason"] for event in events] == [None] * 7 + ["stop"]
    assert not any("usage" in event for event in events)


def test_usage_comes_last_when_it_is_asked_for(app: Starlette) -> None:
    *before, last = _events(_ask(app, stream=True, stream_options={"include_usage": True}))
    assert {event["usage"] for event in before} == {None}
    assert last["choices"] == []
    assert last["usage"] == {
        "prompt_tokens": 6,
        "completion_tokens": 6,
        "total_tokens": 12,
        "prompt_tokens_details": {"cached_tokens": 0},
    }


def test_text_that_is_not_ascii(app: Starlette, backend: FakeBackend) -> None:
    backend.words = ("Grüße", " 😀", "\n")
    assert _ask(app).json()["choices"][0]["message"]["content"] == "Grüße 😀\n"
    events = _events(_ask(app, stream=True))
    assert "".join(event["choices"][0]["delta"].get("content", "") for event in events) == "Grüße 😀\n"


def test_several_answers(app: Starlette, console: Console) -> None:
    answer = _ask(app, n=3, seed=5).json()
    assert [(choice["index"], choice["message"]["content"]) for choice in answer["choices"]] == [
        (index, _ANSWER) for index in range(3)
    ]
    assert answer["usage"] == {
        "prompt_tokens": 6,
        "completion_tokens": 18,
        "total_tokens": 24,
        "prompt_tokens_details": {"cached_tokens": 0},
    }
    assert answer["seed"] == 5
    wait_until(lambda: len(_kept(console)) == 3)
    assert {record.request_id for record in console.records.recent()} == {f"{answer['id']}-{i}" for i in range(3)}


def test_several_answers_streamed(app: Starlette) -> None:
    *events, usage = _events(_ask(app, n=3, stream=True, stream_options={"include_usage": True}))
    texts = dict.fromkeys(range(3), "")
    for event in events:
        (choice,) = event["choices"]
        texts[choice["index"]] += choice["delta"].get("content", "")
    assert texts == dict.fromkeys(range(3), _ANSWER)
    assert [event["choices"][0]["index"] for event in events[:3]] == [0, 1, 2]
    assert [event["choices"][0]["finish_reason"] for event in events].count("stop") == 3
    assert usage["usage"] == {
        "prompt_tokens": 6,
        "completion_tokens": 18,
        "total_tokens": 24,
        "prompt_tokens_details": {"cached_tokens": 0},
    }


@pytest.mark.parametrize("stream", [False, True])
def test_a_queue_without_room_for_all_takes_none(
    app: Starlette, console: Console, backend: FakeBackend, stream: bool
) -> None:
    backend.max_requests = 2
    backend.gate.clear()
    assert _ask(app, n=3, stream=stream).status_code == 429
    backend.gate.set()
    wait_until(lambda: console.engine.requests() == ())
    wait_until(lambda: _kept(console).count("cancelled") == 2)


def test_a_client_that_leaves_cancels_all_answers(app: Starlette, console: Console, backend: FakeBackend) -> None:
    backend.words = ["word "] * 5_000
    asyncio.run(asyncio.wait_for(_leave(app, _body(stream=True, n=3), 2, "2.4"), 20))
    wait_until(lambda: _kept(console) == ["cancelled"] * 3)
    wait_until(lambda: console.engine.requests() == ())


def test_fields_without_effect_are_accepted(app: Starlette) -> None:
    response = _ask(
        app,
        user="ann",
        safety_identifier="a",
        prompt_cache_key="b",
        prompt_cache_retention="in_memory",
        metadata={"job": "nightly"},
        modalities=["text"],
        service_tier="auto",
        store=False,
        n=None,
        temperature=None,
        audio=None,
        functions=None,
        parallel_tool_calls=True,
        tool_choice="none",
        response_format={"type": "text"},
    )
    assert response.json()["choices"][0]["message"]["content"] == _ANSWER


def test_answers_are_recorded_as_the_apis(app: Starlette, console: Console) -> None:
    identifier = _ask(app).json()["id"]
    console.records.flush()
    (record,) = console.records.recent()
    assert (record.request_id, record.source, record.status.value) == (identifier, "api", "successful")


@pytest.mark.parametrize(
    ("fields", "status", "param", "words"),
    [
        ({"model": "n"}, 404, None, "there is no model named 'n'; loaded: m"),
        ({"messages": []}, 400, "messages", "the prompt is empty"),
        ({"messages": [{"role": "user", "content": ""}]}, 400, "messages", "the prompt is empty"),
        ({"messages": [{"role": "critic", "content": "x"}]}, 400, "messages.0.role", "'user'"),
        ({"messages": [{"role": "tool", "content": "x"}]}, 400, "messages.0", "tool_call_id belongs to the role tool"),
        ({"temperature": 3}, 400, "temperature", "temperature is 3; it must be at least 0 and at most 2"),
        ({"temperature": "hot"}, 400, "temperature", "valid number"),
        ({"top_p": 0}, 400, "top_p", "above 0"),
        ({"top_k": -1}, 400, "top_k", "at least 0"),
        ({"min_p": 2}, 400, "min_p", "at most 1"),
        ({"repetition_penalty": 0}, 400, "repetition_penalty", "at least 0.01"),
        ({"presence_penalty": 9}, 400, "presence_penalty", "at most 2"),
        ({"frequency_penalty": -9}, 400, "frequency_penalty", "at least -2"),
        ({"seed": -1}, 400, "seed", "at least 0"),
        ({"seed": 10**400}, 400, "seed", "at most 9223372036854775807"),
        ({"stop": [""]}, 400, "stop", "empty string"),
        ({"stop": ["a"] * 17}, 400, "stop", "at most 16"),
        ({"max_tokens": 0}, 400, "max_tokens", "at least 1"),
        ({"max_tokens": 3, "max_completion_tokens": 4}, 400, "max_tokens", "send one of them"),
        ({"logit_bias": {"x": 1}}, 400, "logit_bias", "not a token id"),
        ({"logit_bias": {"-1": 1}}, 400, "logit_bias", "names token -1"),
        ({"logit_bias": {"1": 101}}, 400, "logit_bias", "at most 100"),
        ({"top_logprobs": 2}, 400, "top_logprobs", "only allowed with logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, 400, "top_logprobs", "at most 20"),
        ({"timeout_s": 0}, 400, "timeout_s", "above 0"),
        ({"n": 0}, 400, "n", "n is 0; it must be at least 1 and at most 16"),
        ({"n": 17}, 400, "n", "n is 17; it must be at least 1 and at most 16"),
        ({"unheard_of": 1}, 400, "unheard_of", "unheard_of is not supported by this server: leave it out"),
        ({"audio": {"voice": "x"}}, 400, "audio", "this server does not support it, leave it out"),
        ({"functions": []}, 400, "functions", "does not support"),
        ({"reasoning_effort": "low"}, 400, "reasoning_effort", "does not support"),
        ({"store": True}, 400, "store", "False"),
        ({"service_tier": "flex"}, 400, "service_tier", "'auto'"),
        ({"modalities": ["audio"]}, 400, "modalities.0", "'text'"),
        ({"metadata": {str(key): "" for key in range(17)}}, 400, "metadata", "at most 16"),
        ({"metadata": {"key": "x" * 513}}, 400, "metadata", "shorten it"),
        ({"tools": []}, 400, "tools", "at least 1 and at most 128"),
        ({"tool_choice": "required"}, 400, "tool_choice", "send tools"),
        ({"response_format": {"type": "xml"}}, 400, "response_format.type", "'json_object'"),
        ({"response_format": {"type": "json_schema"}}, 400, "response_format", "needs json_schema"),
        (
            {"stream_options": {"include_obfuscation": True}, "stream": True},
            400,
            "stream_options.include_obfuscation",
            "",
        ),
        ({"stream_options": {"include_usage": True}}, 400, "stream_options", "only allowed with stream"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(
    app: Starlette, fields: dict[str, Any], status: int, param: str | None, words: str
) -> None:
    response = _ask(app, **fields)
    error = response.json()["error"]
    assert response.status_code == status
    assert error["param"] == param
    assert words in error["message"]
    assert error["type"] == "invalid_request_error"
    assert error["code"]


def test_not_ready_is_503(app: Starlette, console: Console, backend: FakeBackend) -> None:
    backend.load_gate.clear()
    console.engine.unload("m")
    console.engine.load(fake_spec())
    response = _ask(app)
    assert response.status_code == 503
    assert response.json()["error"]["code"] == "model_not_ready"
    assert response.json()["error"]["type"] == "server_error"


def test_a_full_queue_is_429_with_a_time_to_wait(app: Starlette, backend: FakeBackend) -> None:
    backend.max_requests = 0
    response = _ask(app)
    assert (response.status_code, response.json()["error"]["code"]) == (429, "queue_full")
    assert response.headers["retry-after"] == "1"


def test_a_worker_that_dies_is_an_error_in_either_form(app: Starlette, console: Console, backend: FakeBackend) -> None:
    def die_once(**fields: Any) -> httpx.Response:
        backend.words = ("The ", RuntimeError("CUDA error"))
        response = _ask(app, **fields)
        backend.words = ("fine",)
        await_ready(console)
        return response

    whole = die_once()
    assert whole.status_code == 500
    assert whole.json()["error"]["code"] == WorkerDiedError.code
    streamed = _events(die_once(stream=True))
    assert "the worker of m died" in streamed[-1]["error"]["message"]
    assert streamed[-1]["error"] == whole.json()["error"]
    assert _ask(app).status_code == 200


async def _leave(app: Starlette, body: dict[str, Any], after_messages: int, spec_version: str) -> None:
    """Speak ASGI as a server does whose client leaves after so many messages of the answer."""
    sent: list[Any] = []
    has_left = asyncio.Event()
    received = iter([{"type": "http.request", "body": json.dumps(body).encode(), "more_body": False}])
    if after_messages == 0:
        has_left.set()

    async def receive() -> Any:
        for message in received:
            return message
        await has_left.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        await asyncio.sleep(0)
        if has_left.is_set() and spec_version >= "2.4":
            raise OSError("the client has left")
        sent.append(message)
        if len(sent) >= after_messages:
            has_left.set()

    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": spec_version},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": _PATH,
        "raw_path": _PATH.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": [(b"content-type", b"application/json")],
    }
    with suppress(ClientDisconnect):
        await app(scope, receive, send)


@pytest.mark.parametrize("spec_version", ["2.3", "2.4"])
@pytest.mark.parametrize("after_messages", [0, 1, 2])
def test_a_client_that_leaves_a_stream_cancels(
    app: Starlette, console: Console, after_messages: int, backend: FakeBackend, spec_version: str
) -> None:
    """Also one that has left before the first event."""
    backend.words = ["word "] * 5_000
    asyncio.run(asyncio.wait_for(_leave(app, _body(stream=True), after_messages, spec_version), 20))
    wait_until(lambda: _kept(console) == ["cancelled"])
    wait_until(lambda: console.engine.requests() == ())


def _kept(console: Console) -> list[str]:
    """How the requests ended that a record was kept of. The record comes after the request has left the engine."""
    console.records.flush()
    return [record.status.value for record in console.records.recent()]


def _send(url: str, body: dict[str, Any]) -> socket.socket:
    host, _, port = url.removeprefix("http://").partition(":")
    raw = json.dumps(body).encode()
    connection = socket.create_connection((host, int(port)), timeout=10)
    head = (
        f"POST {_PATH} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: {len(raw)}\r\n\r\n"
    )
    connection.sendall(head.encode() + raw)
    return connection


@pytest.mark.parametrize("stream", [True, False])
def test_a_connection_that_breaks_cancels(app: Starlette, console: Console, backend: FakeBackend, stream: bool) -> None:
    backend.gate.clear()
    with serve(app) as url:
        with _send(url, _body(stream=stream)) as connection:
            if stream:
                assert b"200 OK" in connection.recv(4_096)
            wait_until(lambda: len(console.engine.requests()) == 1)
        wait_until(lambda: console.engine.requests() == ())
    assert console.engine.instances()[0].num_restarts == 0


def test_a_stream_left_midway_by_the_openai_client(client: openai.OpenAI, tiny_console: Console) -> None:
    stream: Any = client.chat.completions.create(
        model="tiny",
        messages=_QUESTION,
        stream=True,
        max_tokens=1_800,
        logit_bias=_NO_END,
    )
    for _ in zip(range(3), stream, strict=False):
        pass
    stream.close()
    wait_until(lambda: tiny_console.engine.requests() == ())


def test_the_openai_client_chats(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="tiny",
        messages=_QUESTION,
        max_tokens=20,
        seed=7,
        logit_bias=_NO_END,
    )
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 20
    assert answer.usage.prompt_tokens > 20
    assert answer.choices[0].message.role == "assistant"


def test_the_openai_client_streams_the_same_answer(client: openai.OpenAI) -> None:
    fields: dict[str, Any] = {"model": "tiny", "messages": _QUESTION, "max_tokens": 20, "seed": 7, "temperature": 1.1}
    whole = client.chat.completions.create(**fields)
    chunks = list(client.chat.completions.create(**fields, stream=True, stream_options={"include_usage": True}))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    assert chunks[-1].usage == whole.usage
    assert chunks[-2].choices[0].finish_reason == whole.choices[0].finish_reason


def test_logprobs_in_both_forms(client: openai.OpenAI) -> None:
    fields: dict[str, Any] = {
        "model": "tiny",
        "messages": _QUESTION,
        "max_tokens": 6,
        "temperature": 0,
        "logprobs": True,
        "top_logprobs": 2,
    }
    whole = client.chat.completions.create(**fields, logit_bias=_NO_END).choices[0].logprobs.content
    assert len(whole) == 6
    for item in whole:
        assert len(item.top_logprobs) == 2
        assert item.logprob <= item.top_logprobs[0].logprob <= 0
        assert item.token in (bytes(item.bytes).decode(errors="replace"), f"bytes:\\x{item.bytes[0]:02x}")
    chunks = client.chat.completions.create(**fields, logit_bias=_NO_END, stream=True)
    streamed = [item for chunk in chunks if chunk.choices[0].logprobs for item in chunk.choices[0].logprobs.content]
    assert streamed == whole


def test_answers_of_one_request_count_the_seed_up(client: openai.OpenAI) -> None:
    fields: dict[str, Any] = {"model": "tiny", "messages": _QUESTION, "max_tokens": 12, "logit_bias": _NO_END}
    together = client.chat.completions.create(**fields, n=3, seed=40)
    texts = [choice.message.content for choice in together.choices]
    alone = [client.chat.completions.create(**fields, seed=seed).choices[0].message.content for seed in (40, 41, 42)]
    assert texts == alone
    assert len(set(texts)) == 3
    drawn: Any = client.chat.completions.create(**fields, n=2)
    again = client.chat.completions.create(**fields, n=2, seed=drawn.seed)
    assert [choice.message for choice in again.choices] == [choice.message for choice in drawn.choices]


def test_half_a_character_has_its_real_bytes(client: openai.OpenAI) -> None:
    """Every token of the tiny model is one byte."""
    answer: Any = client.chat.completions.create(
        model="tiny", messages=_QUESTION, max_tokens=40, seed=2, logprobs=True, top_logprobs=5, logit_bias=_NO_END
    )
    items = [item for token in answer.choices[0].logprobs.content for item in (token, *token.top_logprobs)]
    ordinary = [item for item in items if not item.token.startswith("<|")]
    assert all(len(item.bytes) == 1 for item in ordinary)
    halves = [item for item in ordinary if item.bytes[0] >= 128]
    assert halves
    assert all(item.token == f"bytes:\\x{item.bytes[0]:02x}" for item in halves)


def test_a_stop_string(client: openai.OpenAI) -> None:
    fields: dict[str, Any] = {"model": "tiny", "messages": _QUESTION, "max_tokens": 60, "seed": 1, "top_p": 0.9}
    whole = client.chat.completions.create(**fields, logit_bias=_NO_END).choices[0].message.content
    stop = whole[20:23]
    stopped = client.chat.completions.create(**fields, logit_bias=_NO_END, stop=stop).choices[0]
    assert stopped.finish_reason == "stop"
    assert stopped.message.content == whole[: whole.index(stop)]


@pytest.mark.parametrize(
    ("fields", "kind", "param", "code"),
    [
        ({"temperature": 7}, openai.BadRequestError, "temperature", "invalid_request"),
        ({"max_tokens": 100_000}, openai.BadRequestError, "max_tokens", "context_length_exceeded"),
        (
            {"messages": [{"role": "user", "content": "x" * 3_000}]},
            openai.BadRequestError,
            "messages",
            "context_length_exceeded",
        ),
        ({"tools": []}, openai.BadRequestError, "tools", "invalid_request"),
        ({"n": 17}, openai.BadRequestError, "n", "invalid_request"),
        ({"model": "gpt-5"}, openai.NotFoundError, None, "model_not_found"),
    ],
)
def test_errors_as_the_openai_client_sees_them(
    client: openai.OpenAI, fields: dict[str, Any], kind: type[openai.APIStatusError], param: str | None, code: str
) -> None:
    with pytest.raises(kind) as refusal:
        client.chat.completions.create(**{"model": "tiny", "messages": _QUESTION, **fields})
    assert (refusal.value.param, refusal.value.code) == (param, code)


def test_a_deadline_is_504(client: openai.OpenAI) -> None:
    with pytest.raises(openai.APIStatusError) as refusal:
        client.chat.completions.create(
            model="tiny",
            messages=_QUESTION,
            max_tokens=1_800,
            logit_bias=_NO_END,
            extra_body={"timeout_s": 0.1},
        )
    assert refusal.value.status_code == 504
    assert refusal.value.code == "deadline_exceeded"


def test_many_clients_at_once(tiny_url: str, client: openai.OpenAI) -> None:
    fields: dict[str, Any] = {"model": "tiny", "messages": _QUESTION, "max_tokens": 15, "seed": 3}
    alone = client.chat.completions.create(**fields).choices[0].message.content

    async def ask_all() -> list[Any]:
        async with openai.AsyncOpenAI(base_url=f"{tiny_url}/v1", api_key="unused", max_retries=0) as many:
            return await asyncio.gather(*(many.chat.completions.create(**fields) for _ in range(12)))

    answers = asyncio.run(asyncio.wait_for(ask_all(), 60))
    assert {answer.choices[0].message.content for answer in answers} == {alone}


@pytest.mark.model
def test_the_sample_model_through_the_openai_client(sample_console: Console) -> None:
    (instance,) = sample_console.engine.instances()
    with (
        serve(build_app(sample_console)) as url,
        openai.OpenAI(base_url=f"{url}/v1", api_key="unused", max_retries=0) as client,
    ):
        answer = client.chat.completions.create(
            model=instance.name,
            messages=_QUESTION,
            temperature=0,
            max_tokens=12,
        )
    assert "Paris" in str(answer.choices[0].message.content)


def test_a_prompt_that_begins_as_an_earlier_one_is_not_computed_again(client: openai.OpenAI, tiny_url: str) -> None:
    system = {"role": "system", "content": "Answer as the keeper of this lighthouse would, in few words. " * 12}

    def ask(question: str) -> Any:
        messages: Any = [system, {"role": "user", "content": question}]
        return client.chat.completions.create(model="tiny", messages=messages, max_tokens=4, temperature=0)

    first, second = ask("What is rain?"), ask("What is snow?")
    assert first.usage.prompt_tokens_details.cached_tokens == 0
    assert second.usage.prompt_tokens_details.cached_tokens == 512
    assert second.usage.prompt_tokens > 512
    response = client.responses.create(model="tiny", instructions=system["content"], input="Hail?", max_output_tokens=4)
    assert response.usage is not None
    assert response.usage.input_tokens_details.cached_tokens == 512
    lines = httpx.get(f"{tiny_url}/metrics").text.splitlines()
    (hits,) = (line for line in lines if line.startswith('vllm:prefix_cache_hits_total{model_name="tiny"}'))
    assert float(hits.split()[-1]) >= 1024
