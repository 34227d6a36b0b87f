from __future__ import annotations

import json
import socket
from typing import Any

import httpx
import openai
import pytest
from starlette.applications import Starlette

from engine.api.choices import Choices
from engine.console import Console
from engine.errors import QueueFullError
from engine.inference.request import Request
from tests.engine.api.servers import await_records, build_app, call, serve
from tests.fakes import FakeBackend, wait_until

_PATH = "/v1/completions"
_ANSWER = "The capital of France is Paris."
_NO_END: Any = {"257": -100}


def _ask(app: Starlette, **fields: Any) -> httpx.Response:
    return call(app, "POST", _PATH, json={"model": "m", "prompt": "Once upon", **fields})


def _events(response: httpx.Response) -> list[Any]:
    lines = [line for line in response.text.split("\n\n") if line]
    assert lines[-1] == "data: [DONE]"
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]


def test_a_whole_answer(app: Starlette) -> None:
    response = _ask(app, seed=5)
    assert response.status_code == 200
    answer = response.json()
    assert answer["object"] == "text_completion"
    assert answer["id"].startswith("cmpl-")
    assert answer["id"] == response.headers["x-request-id"]
    assert answer["choices"] == [{"index": 0, "text": _ANSWER, "logprobs": None, "finish_reason": "stop", "seed": 5}]
    assert answer["usage"] == {
        "prompt_tokens": 2,
        "completion_tokens": 6,
        "total_tokens": 8,
        "prompt_tokens_details": {"cached_tokens": 0},
    }


def test_the_record_has_the_id_of_the_answer(app: Starlette, console: Console) -> None:
    identifier = _ask(app).json()["id"]
    (record,) = await_records(console, 1)
    assert (record.request_id, record.source) == (identifier, "api")


def test_every_prompt_is_continued_n_times(app: Starlette, console: Console) -> None:
    answer = _ask(app, prompt=["one", "two words"], n=2, seed=7).json()
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2, 3]
    assert [choice["seed"] for choice in answer["choices"]] == [7, 8, 7, 8]
    assert answer["usage"] == {
        "prompt_tokens": 3,
        "completion_tokens": 24,
        "total_tokens": 27,
        "prompt_tokens_details": {"cached_tokens": 0},
    }
    ids = {record.request_id for record in await_records(console, 4)}
    assert ids == {f"{answer['id']}-{index}" for index in range(4)}


def test_echo_puts_the_prompt_before_the_answer(app: Starlette) -> None:
    answer = _ask(app, prompt=["Once ", "Twice "], echo=True).json()
    assert [choice["text"] for choice in answer["choices"]] == [f"Once {_ANSWER}", f"Twice {_ANSWER}"]
    ids = list(b"Ids: ")
    assert _ask(app, prompt=ids, echo=True).json()["choices"][0]["text"] == f"Ids: {_ANSWER}"
    assert _ask(app, prompt=[ids, ids], echo=True).json()["choices"][1]["text"] == f"Ids: {_ANSWER}"


def test_a_stream_of_several_choices(app: Starlette) -> None:
    response = _ask(app, stream=True, n=2, echo=True, stream_options={"include_usage": True})
    assert response.headers["content-type"].startswith("text/event-stream")
    *events, usage = _events(response)
    assert {event["object"] for event in events} == {"text_completion"}
    assert {event["id"] for event in events} == {response.headers["x-request-id"]}
    for index in (0, 1):
        mine = [event["choices"][0] for event in events if event["choices"][0]["index"] == index]
        assert "".join(choice["text"] for choice in mine) == f"Once upon{_ANSWER}"
        assert [choice["finish_reason"] for choice in mine if choice["finish_reason"]] == ["stop"]
    assert usage["choices"] == []
    assert usage["usage"] == {
        "prompt_tokens": 2,
        "completion_tokens": 12,
        "total_tokens": 14,
        "prompt_tokens_details": {"cached_tokens": 0},
    }


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({"prompt": ""}, "prompt", "prompt is empty"),
        ({"prompt": []}, "prompt", "prompt is empty"),
        ({"prompt": ["a", ""]}, "prompt", "prompt is empty"),
        ({"prompt": "\ud800"}, "prompt", "half a character"),
        ({"prompt": {"text": "a"}}, "prompt", "send a text, a list of texts, a list of token ids"),
        ({"prompt": ["a", 1]}, "prompt", "send a text"),
        ({"prompt": [1.5]}, "prompt", "send a text"),
        ({"prompt": None}, "prompt", "send a text"),
        ({"prompt": ["a"] * 43, "n": 3}, "n", "43 prompts with n = 3 ask for 129 answers, at most 128"),
        ({"prompt": ["a"] * 129}, "prompt", "at most 128"),
        ({"n": 0}, "n", "n is 0"),
        ({"n": 129}, "n", "at most 128"),
        ({"best_of": 2}, "best_of", "best_of is 2; it must be n (1)"),
        ({"suffix": "end"}, "suffix", "suffix is not supported"),
        ({"logprobs": 6}, "logprobs", "logprobs is 6"),
        ({"logprobs": -1}, "logprobs", "logprobs is -1"),
        ({"logprobs": 1, "echo": True}, "echo", "not supported together with logprobs"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "only allowed with stream"),
        ({"max_tokens": 0}, "max_tokens", "at least 1"),
        ({"temperature": 3}, "temperature", "at most 2"),
        ({"messages": []}, "messages", "messages is not supported by this server"),
        ({"guided_json": {}}, "guided_json", "not supported"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(
    app: Starlette, console: Console, fields: dict[str, Any], param: str, words: str
) -> None:
    body = json.dumps({"model": "m", "prompt": "Once upon", **fields})
    response = call(app, "POST", _PATH, content=body, headers={"content-type": "application/json"})
    assert response.status_code == 400
    error = response.json()["error"]
    assert error["type"] == "invalid_request_error"
    assert error["param"] == param
    assert words in error["message"]
    wait_until(lambda: console.engine.requests() == ())


def test_best_of_n_is_n(app: Starlette) -> None:
    assert len(_ask(app, n=2, best_of=2).json()["choices"]) == 2


def test_a_queue_too_short_for_all_choices_takes_none(app: Starlette, console: Console, backend: FakeBackend) -> None:
    backend.max_requests = 2
    backend.gate.clear()
    response = _ask(app, n=3)
    assert response.status_code == 429
    assert response.json()["error"]["code"] == "queue_full"
    wait_until(lambda: not console.engine.requests())
    with pytest.raises(QueueFullError):
        Choices.begin(console.engine, [Request("m", (), prompt="a") for _ in range(3)])
    wait_until(lambda: not console.engine.requests())


@pytest.mark.parametrize("is_stream", [True, False])
def test_one_choice_that_fails_ends_the_others(
    app: Starlette, console: Console, backend: FakeBackend, is_stream: bool
) -> None:
    backend.words = ("The ", RuntimeError("out of memory"))
    response = _ask(app, n=2, stream=is_stream)
    if is_stream:
        errors = [event["error"] for event in _events(response) if "error" in event]
        assert len(errors) == 1
    else:
        assert response.status_code == 500
        errors = [response.json()["error"]]
    assert "out of memory" in errors[0]["message"]
    wait_until(lambda: not console.engine.requests())


@pytest.mark.parametrize("is_stream", [True, False])
def test_a_client_that_leaves_ends_all_its_choices(console: Console, backend: FakeBackend, is_stream: bool) -> None:
    backend.gate.clear()
    body = json.dumps({"model": "m", "prompt": ["a", "b"], "n": 2, "stream": is_stream}).encode()
    with serve(build_app(console)) as url:
        address = httpx.URL(url)
        with socket.create_connection((address.host, address.port or 80), timeout=30) as connection:
            head = f"POST {_PATH} HTTP/1.1\r\nHost: c\r\nContent-Type: application/json\r\n"
            connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            wait_until(lambda: len(console.engine.requests()) == 4)
        wait_until(lambda: not console.engine.requests())


def test_the_openai_client(client: openai.OpenAI) -> None:
    answer = client.completions.create(model="tiny", prompt="Once", temperature=0, max_tokens=8, logit_bias=_NO_END)
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (4, 8)
    chunks = list(
        client.completions.create(
            model="tiny", prompt="Once", temperature=0, max_tokens=8, logit_bias=_NO_END, stream=True
        )
    )
    assert "".join(chunk.choices[0].text for chunk in chunks) == answer.choices[0].text
    assert chunks[-1].choices[0].finish_reason == "length"


def test_sixteen_tokens_are_written_where_none_is_said(client: openai.OpenAI) -> None:
    answer = client.completions.create(model="tiny", prompt="Once", logit_bias=_NO_END)
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 16


def test_ids_and_text_are_the_same_prompt(client: openai.OpenAI) -> None:
    tokens = client.post("/tokenize", body={"prompt": "Once"}, cast_to=dict[str, Any])["tokens"]
    by_text, by_ids = (
        client.completions.create(model="tiny", prompt=prompt, temperature=0, max_tokens=8)
        for prompt in ("Once", tokens)
    )
    assert by_text.choices[0].text == by_ids.choices[0].text
    with pytest.raises(openai.BadRequestError, match=r"prompt holds token 258; the model's ids run from 0 to 257"):
        client.completions.create(model="tiny", prompt=[1, 258])
    with pytest.raises(openai.BadRequestError) as refused:
        client.completions.create(model="tiny", prompt=[1] * 2048)
    assert refused.value.param == "prompt"


def test_n_answers_differ_and_each_can_be_had_again(client: openai.OpenAI) -> None:
    def create(seed: int, n: int) -> list[str]:
        answer = client.completions.create(model="tiny", prompt="Once", n=n, seed=seed, max_tokens=12)
        return [choice.text for choice in answer.choices]

    both = create(3, 2)
    assert both[0] != both[1]
    assert [create(3, 1)[0], create(4, 1)[0]] == both


@pytest.mark.parametrize("is_stream", [True, False])
def test_logprobs_have_the_older_form(client: openai.OpenAI, is_stream: bool) -> None:
    def create(**fields: Any) -> Any:
        return client.completions.create(model="tiny", prompt="Once", temperature=0, max_tokens=6, **fields)

    if is_stream:
        parts = [chunk.choices[0].logprobs for chunk in create(logprobs=2, stream=True)]
        found = {
            name: [item for part in parts if part is not None for item in getattr(part, name)]
            for name in ("tokens", "token_logprobs", "top_logprobs", "text_offset")
        }
    else:
        found = create(logprobs=2).choices[0].logprobs.model_dump()
    num_tokens = len(found["tokens"])
    assert num_tokens == len(found["token_logprobs"]) == len(found["top_logprobs"]) == len(found["text_offset"])
    assert found["text_offset"] == [sum(len(token) for token in found["tokens"][:at]) for at in range(num_tokens)]
    for token, logprob, top in zip(found["tokens"], found["token_logprobs"], found["top_logprobs"], strict=True):
        assert top[token] == logprob == max(top.values())
    assert create().choices[0].logprobs is None
