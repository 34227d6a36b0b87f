from __future__ import annotations

import base64
import json
import math
import socket
import struct
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import openai
import pytest
from starlette.applications import Starlette

from engine.console import Console
from tests.engine.api.servers import await_records, build_app, call, serve
from tests.fakes import FakeBackend, wait_until

_PATH = "/v1/embeddings"


def _ask(app: Starlette, **fields: Any) -> httpx.Response:
    return call(app, "POST", _PATH, json={"model": "m", "input": "some text", **fields})


def test_one_text(app: Starlette) -> None:
    response = _ask(app)
    assert response.status_code == 200
    assert response.headers["x-request-id"].startswith("embd-")
    assert response.json() == {
        "object": "list",
        "model": "m",
        "data": [{"object": "embedding", "index": 0, "embedding": [1.0, 0.0]}],
        "usage": {"prompt_tokens": 9, "total_tokens": 9},
    }


@pytest.mark.parametrize(
    ("given", "num_texts", "num_tokens"),
    [("abc", 1, 3), (["a", "bc"], 2, 3), ([1, 2, 3], 1, 3), ([[1], [2, 3]], 2, 3)],
)
def test_inputs_of_all_shapes(app: Starlette, given: Any, num_texts: int, num_tokens: int) -> None:
    answer = _ask(app, input=given).json()
    assert [item["index"] for item in answer["data"]] == list(range(num_texts))
    assert answer["usage"]["total_tokens"] == num_tokens


def test_base64_is_little_endian_float32(app: Starlette) -> None:
    (item,) = _ask(app, encoding_format="base64").json()["data"]
    assert struct.unpack("<2f", base64.b64decode(item["embedding"])) == (1.0, 0.0)


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({"input": ""}, "input", "input is empty"),
        ({"input": []}, "input", "input is empty"),
        ({"input": ["a", ""]}, "input", "input is empty"),
        ({"input": ["a"] * 2049}, "input", "input has 2049 texts"),
        ({"input": 5}, "input", "send a text"),
        ({"encoding_format": "int8"}, "encoding_format", "'float' or 'base64'"),
        ({"pooling": "max"}, "pooling", "'mean' or 'last'"),
        ({"timeout_s": 0}, "timeout_s", "greater than 0"),
        ({"truncate": True}, "truncate", "truncate is not supported by this server"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(
    app: Starlette, fields: dict[str, Any], param: str, words: str
) -> None:
    response = _ask(app, **fields)
    assert response.status_code == 400
    assert response.json()["error"]["param"] == param
    assert words in response.json()["error"]["message"]


def test_an_unknown_model(app: Starlette) -> None:
    response = _ask(app, model="n")
    assert response.status_code == 404
    assert response.json()["error"]["code"] == "model_not_found"


def test_the_request_is_recorded(app: Starlette, console: Console) -> None:
    identifier = _ask(app, input=["a", "bc"]).headers["x-request-id"]
    (record,) = await_records(console, 1)
    assert (record.request_id, record.source, record.status.value) == (identifier, "api", "successful")
    assert (record.num_prompt_tokens, record.num_output_tokens, record.ttft_s) == (3, 0, None)


def test_a_client_that_leaves_takes_its_texts_with_it(console: Console, backend: FakeBackend) -> None:
    backend.gate.clear()
    body = json.dumps({"model": "m", "input": ["a", "b"]}).encode()
    with serve(build_app(console)) as url:
        address = httpx.URL(url)
        with socket.create_connection((address.host, address.port or 80), timeout=30) as connection:
            head = f"POST {_PATH} HTTP/1.1\r\nHost: c\r\nContent-Type: application/json\r\n"
            connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            wait_until(lambda: len(console.engine.requests()) == 1)
        wait_until(lambda: not console.engine.requests())


@pytest.fixture
def pending(console: Console, backend: FakeBackend) -> Iterator[Callable[[], httpx.Response]]:
    """A request that waits to be run; calling it waits for its answer."""
    backend.gate.clear()
    with serve(build_app(console)) as url, ThreadPoolExecutor(1) as pool:
        answer = pool.submit(httpx.post, f"{url}{_PATH}", json={"model": "m", "input": "a"}, timeout=30)
        wait_until(lambda: len(console.engine.requests()) == 1)
        yield lambda: answer.result(30)


def test_an_operator_can_cancel(console: Console, pending: Callable[[], httpx.Response]) -> None:
    assert console.engine.cancel(console.engine.requests()[0].request_id)
    response = pending()
    assert response.status_code == 503
    assert "cancelled by the operator" in response.text


def test_a_worker_that_dies_is_an_error(backend: FakeBackend, pending: Callable[[], httpx.Response]) -> None:
    backend.errors.append(RuntimeError("out of memory"))
    response = pending()
    assert response.status_code == 500
    assert "out of memory" in response.json()["error"]["message"]


def test_the_openai_client(client: openai.OpenAI) -> None:
    texts = ["a cat", "a dog on a mat", "x"]
    answer = client.embeddings.create(model="tiny", input=texts)
    assert [item.index for item in answer.data] == [0, 1, 2]
    assert answer.usage.prompt_tokens == sum(len(text) for text in texts)
    for item in answer.data:
        assert len(item.embedding) == 64
        assert math.isclose(math.hypot(*item.embedding), 1.0, abs_tol=1e-5)
    as_floats = client.embeddings.create(model="tiny", input=texts[1], encoding_format="float").data[0].embedding
    assert all(math.isclose(a, b, abs_tol=1e-6) for a, b in zip(as_floats, answer.data[1].embedding, strict=True))


def test_the_pooling_is_a_choice(client: openai.OpenAI) -> None:
    mean, last = (
        client.embeddings.create(model="tiny", input="some text", extra_body={"pooling": pooling}).data[0].embedding
        for pooling in ("mean", "last")
    )
    assert max(abs(a - b) for a, b in zip(mean, last, strict=True)) > 0.01
    default = client.embeddings.create(model="tiny", input="some text").data[0].embedding
    assert all(math.isclose(a, b, abs_tol=1e-6) for a, b in zip(mean, default, strict=True))


def test_dimensions_are_the_models_own(client: openai.OpenAI) -> None:
    assert len(client.embeddings.create(model="tiny", input="a", dimensions=64).data[0].embedding) == 64
    with pytest.raises(openai.BadRequestError, match="dimensions is 32; tiny has 64"):
        client.embeddings.create(model="tiny", input="a", dimensions=32)


def test_a_text_too_long_for_the_model(client: openai.OpenAI) -> None:
    assert client.embeddings.create(model="tiny", input="a" * 2048).usage.total_tokens == 2048
    with pytest.raises(openai.BadRequestError, match=r"text 1 has 2,049 tokens, and tiny embeds 2,048 at most"):
        client.embeddings.create(model="tiny", input=["a", "a" * 2049])
    with pytest.raises(openai.BadRequestError, match=r"at most 300,000 are embedded in one request"):
        client.embeddings.create(model="tiny", input=["a" * 2000] * 151)


def test_texts_are_embedded_while_answers_are_written(client: openai.OpenAI) -> None:
    alone = client.embeddings.create(model="tiny", input="some text").data[0].embedding
    no_end: Any = {"257": -100}
    with client.chat.completions.create(
        model="tiny", messages=[{"role": "user", "content": "hi"}], max_tokens=1000, stream=True, logit_bias=no_end
    ) as chat:
        chunks = iter(chat)
        next(chunks)
        beside = client.embeddings.create(model="tiny", input=["some text", "another"]).data[0].embedding
        assert next(chunks).choices[0].finish_reason is None
    assert all(math.isclose(a, b, abs_tol=1e-5) for a, b in zip(alone, beside, strict=True))
