from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import httpx
import openai
import pytest
from pydantic import BaseModel, SecretStr
from starlette.applications import Starlette

from engine.config import Settings
from engine.console import Console
from engine.scheduling.quota import Quota
from engine.state.api_keys import Scope
from tests.engine.api.servers import await_records, build_app, call, fake_console, load_ready, serve
from tests.fakes import FakeBackend, wait_until

_PATH = "/v1/responses"
_ANSWER = "The capital of France is Paris."
_NO_END: Any = {"logit_bias": {"257": -100}}


@pytest.fixture
def fake_url(app: Starlette) -> Iterator[str]:
    """A server over the fake model `m`; background responses need one that stays."""
    with serve(app) as url:
        yield url


@pytest.fixture
def fake(fake_url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{fake_url}/v1", api_key="unused", max_retries=0, timeout=30) as one:
        yield one


_PICTURE = {"type": "input_image", "image_url": ""}


def _ask(app: Starlette, **fields: Any) -> httpx.Response:
    return call(app, "POST", _PATH, json={"model": "m", "input": "What is it?", **fields})


def test_a_whole_response(app: Starlette) -> None:
    response = _ask(app, metadata={"a": "b"}, seed=5)
    assert response.status_code == 200
    answer = response.json()
    assert answer["id"].startswith("resp_")
    assert answer["id"] == response.headers["x-request-id"]
    assert (answer["object"], answer["status"], answer["model"]) == ("response", "completed", "m")
    assert answer["output"][0]["content"][0]["text"] == _ANSWER
    assert (answer["metadata"], answer["seed"], answer["error"]) == ({"a": "b"}, 5, None)
    assert answer["usage"]["total_tokens"] == 9
    assert call(app, "GET", f"{_PATH}/{answer['id']}").json() == answer


def test_the_record_has_the_id_of_the_response(app: Starlette, console: Console) -> None:
    identifier = _ask(app).json()["id"]
    (record,) = await_records(console, 1)
    assert (record.request_id, record.source) == (identifier, "api")


def test_a_response_that_is_not_to_be_stored_is_not(app: Starlette) -> None:
    answer = _ask(app, store=False).json()
    response = call(app, "GET", f"{_PATH}/{answer['id']}")
    assert response.status_code == 404
    assert response.json()["error"]["code"] == "response_not_found"


def test_the_events_on_the_wire(app: Starlette) -> None:
    response = _ask(app, stream=True)
    assert response.headers["content-type"].startswith("text/event-stream")
    blocks = response.text.split("\n\n")
    assert blocks.pop() == ""
    for number, block in enumerate(blocks):
        name, data = block.split("\n")
        event = json.loads(data.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        assert event["sequence_number"] == number
    assert event["type"] == "response.completed"
    assert event["response"]["id"] == response.headers["x-request-id"]
    assert call(app, "GET", f"{_PATH}/{event['response']['id']}").json() == event["response"]


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({"input": ""}, "input", "the prompt is empty"),
        ({"input": []}, "input", "the prompt is empty"),
        ({"input": 5}, "input", "valid list"),
        ({"input": [{"role": "robot", "content": "a"}]}, "input.0.message.role", "'assistant'"),
        ({"input": [{"type": "item_reference", "id": "a"}]}, "input.0", "item_reference"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "a"}]}]},
            "input.0.message.content.0.type",
            "input_text",
        ),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "a"}]}]},
            "input.0.message.content.0.file_id",
            "None",
        ),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "a"}]}]},
            "input.0.content.0.image_url",
            "fetches nothing",
        ),
        (
            {
                "input": [
                    {
                        "type": "function_call_output",
                        "call_id": "a",
                        "output": [{"type": "input_image", "image_url": ""}],
                    }
                ]
            },
            "input.0.function_call_output",
            "a function's output is text",
        ),
        ({"input": [{"type": "function_call_output", "call_id": "a", "output": "b"}]}, "input", "no function_call"),
        ({"max_output_tokens": 0}, "max_output_tokens", "max_output_tokens is 0"),
        ({"max_tokens": 5}, "max_tokens", "not supported"),
        ({"top_logprobs": 2}, "top_logprobs", "only allowed with include"),
        ({"include": ["reasoning.encrypted_content"]}, "include.0", "message.output_text.logprobs"),
        ({"background": True, "store": False}, "background", "only allowed with store"),
        ({"background": True, "stream": True}, "stream", "not supported together with background"),
        ({"tool_choice": "required"}, "tool_choice", "send tools"),
        ({"tools": [{"type": "web_search"}]}, "tools.0.type", "'function'"),
        ({"truncation": "auto"}, "truncation", "'disabled'"),
        ({"reasoning": {"effort": "low"}}, "reasoning", "not supported"),
        ({"conversation": "conv_1"}, "conversation", "not supported"),
        ({"previous_response_id": "resp_0"}, "previous_response_id", "'resp_0', which is not stored"),
        ({"text": {"format": {"type": "xml"}}}, "text.format", "'json_schema'"),
        ({"metadata": {str(index): "" for index in range(17)}}, "metadata", "at most 16"),
        ({"temperature": 5}, "temperature", "at most 2"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(
    app: Starlette, fields: dict[str, Any], param: str, words: str
) -> None:
    response = _ask(app, **fields)
    assert response.status_code == 400
    error = response.json()["error"]
    assert error["param"] == param
    assert words in error["message"]


def test_a_response_goes_on_from_another(app: Starlette) -> None:
    """The fake counts words: the whole conversation is in the prompt, the earlier instructions are not."""
    first = _ask(app, instructions="Be very brief.").json()
    assert first["usage"]["input_tokens"] == 3 + 3
    second = _ask(app, input="And of Italy?", previous_response_id=first["id"]).json()
    assert second["previous_response_id"] == first["id"]
    assert second["usage"]["input_tokens"] == 3 + 6 + 3
    third = _ask(app, input="Yes", previous_response_id=second["id"]).json()
    assert third["usage"]["input_tokens"] == 3 + 6 + 3 + 6 + 1


def test_a_deleted_response_is_gone(app: Starlette) -> None:
    first = _ask(app).json()
    second = _ask(app, previous_response_id=first["id"]).json()
    deleted = call(app, "DELETE", f"{_PATH}/{first['id']}")
    assert deleted.json() == {"id": first["id"], "object": "response", "deleted": True}
    for method, path in (("GET", ""), ("DELETE", ""), ("GET", "/input_items"), ("POST", "/cancel")):
        assert call(app, method, f"{_PATH}/{first['id']}{path}").status_code == 404
    assert call(app, "GET", f"{_PATH}/{second['id']}").status_code == 200
    refused = _ask(app, previous_response_id=second["id"])
    assert refused.status_code == 400
    assert refused.json()["error"]["param"] == "previous_response_id"


def test_input_items_page_by_page(app: Starlette) -> None:
    items = [{"role": "user", "content": str(number)} for number in range(3)]
    identifier = _ask(app, input=items).json()["id"]

    def page(**params: Any) -> Any:
        return call(app, "GET", f"{_PATH}/{identifier}/input_items", params=params).json()

    def texts(answer: Any) -> list[str]:
        return [item["content"][0]["text"] for item in answer["data"]]

    assert texts(page()) == ["2", "1", "0"]
    first = page(order="asc", limit=2)
    assert texts(first) == ["0", "1"]
    assert first["has_more"] is True
    rest = page(order="asc", limit=2, after=first["last_id"])
    assert texts(rest) == ["2"]
    assert rest["has_more"] is False
    assert page(after="msg_0")["error"]["param"] == "after"
    assert page(limit=0)["error"]["code"] == "invalid_request"


def test_reading_a_stream_later_is_refused(app: Starlette) -> None:
    identifier = _ask(app).json()["id"]
    for params in ({"stream": True}, {"starting_after": 3}):
        response = call(app, "GET", f"{_PATH}/{identifier}", params=params)
        assert response.status_code == 400
        assert response.json()["error"]["param"] in params


def test_a_key_sees_its_own_responses_alone(tmp_path: Path, backend: FakeBackend) -> None:
    settings = Settings(home=tmp_path, api_keys=(SecretStr("one"), SecretStr("two")))
    one, two = ({"authorization": f"Bearer {key}"} for key in ("one", "two"))
    with fake_console(settings, backend) as console:
        load_ready(console)
        app = build_app(console)
        body = {"model": "m", "input": "hi"}
        identifier = call(app, "POST", _PATH, json=body, headers=one).json()["id"]
        assert call(app, "GET", f"{_PATH}/{identifier}", headers=one).status_code == 200
        assert call(app, "GET", f"{_PATH}/{identifier}").status_code == 401
        for method, path in (("GET", ""), ("DELETE", ""), ("GET", "/input_items"), ("POST", "/cancel")):
            assert call(app, method, f"{_PATH}/{identifier}{path}", headers=two).status_code == 404
        follow = {**body, "previous_response_id": identifier}
        assert call(app, "POST", _PATH, json=follow, headers=two).status_code == 400
        assert call(app, "POST", _PATH, json=follow, headers=one).status_code == 200


@pytest.mark.parametrize("is_stream", [True, False])
def test_a_worker_that_dies_is_said(app: Starlette, backend: FakeBackend, is_stream: bool) -> None:
    backend.words = ("The ", RuntimeError("out of memory"))
    response = _ask(app, stream=is_stream)
    if not is_stream:
        assert response.status_code == 500
        assert "out of memory" in response.json()["error"]["message"]
        return
    last = json.loads(response.text.strip().split("\n\n")[-1].split("\n")[1].removeprefix("data: "))
    assert last["type"] == "response.failed"
    assert "out of memory" in last["response"]["error"]["message"]
    assert call(app, "GET", f"{_PATH}/{last['response']['id']}").json()["status"] == "failed"


@pytest.mark.parametrize("is_stream", [True, False])
def test_a_client_that_leaves_ends_its_response(console: Console, backend: FakeBackend, is_stream: bool) -> None:
    backend.gate.clear()
    body = json.dumps({"model": "m", "input": "hi", "stream": is_stream}).encode()
    with serve(build_app(console)) as url:
        address = httpx.URL(url)
        with socket.create_connection((address.host, address.port or 80), timeout=30) as connection:
            head = f"POST {_PATH} HTTP/1.1\r\nHost: c\r\nContent-Type: application/json\r\n"
            connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            wait_until(lambda: len(console.engine.requests()) == 1)
        wait_until(lambda: not console.engine.requests())


def test_a_background_response_is_asked_for_until_it_is_complete(fake: openai.OpenAI, backend: FakeBackend) -> None:
    backend.gate.clear()
    begun = fake.responses.create(model="m", input="hi", background=True)
    assert begun.status == "queued"
    assert fake.responses.retrieve(begun.id).status == "queued"
    with pytest.raises(openai.BadRequestError, match="which is queued: wait for it"):
        fake.responses.create(model="m", input="hi", previous_response_id=begun.id)
    backend.gate.set()
    wait_until(lambda: fake.responses.retrieve(begun.id).status == "completed")
    assert fake.responses.retrieve(begun.id).output_text == _ANSWER
    assert fake.responses.cancel(begun.id).status == "completed"


def test_a_background_response_can_be_cancelled(fake: openai.OpenAI, backend: FakeBackend, console: Console) -> None:
    backend.gate.clear()
    begun = fake.responses.create(model="m", input="hi", background=True)
    assert fake.responses.cancel(begun.id).status == "cancelled"
    wait_until(lambda: console.engine.requests() == ())
    assert fake.responses.retrieve(begun.id).status == "cancelled"
    done = fake.responses.create(model="m", input="hi", background=True)
    fake.responses.delete(done.id)
    wait_until(lambda: console.engine.requests() == ())
    with pytest.raises(openai.NotFoundError):
        fake.responses.retrieve(done.id)


def test_a_background_response_is_one_of_its_keys_requests(
    fake_url: str, backend: FakeBackend, console: Console
) -> None:
    backend.gate.clear()
    secret = console.keys.create("one", {Scope.INFERENCE}, Quota(concurrent_requests=1)).secret
    with openai.OpenAI(base_url=f"{fake_url}/v1", api_key=secret, max_retries=0, timeout=30) as one:
        begun = one.responses.create(model="m", input="hi", background=True)
        with pytest.raises(openai.RateLimitError, match="concurrent_requests"):
            one.responses.create(model="m", input="hi", background=True)
        one.responses.cancel(begun.id)
        assert one.responses.create(model="m", input="hi", background=True).status == "queued"
        backend.gate.set()


def test_only_background_responses_can_be_cancelled(fake: openai.OpenAI, backend: FakeBackend) -> None:
    made = fake.responses.create(model="m", input="hi")
    with pytest.raises(openai.BadRequestError, match="was not made with background: true"):
        fake.responses.cancel(made.id)


def test_a_background_response_of_a_server_that_stopped_has_failed(console: Console, backend: FakeBackend) -> None:
    backend.gate.clear()
    with serve(build_app(console)) as url:
        begun = httpx.post(f"{url}{_PATH}", json={"model": "m", "input": "hi", "background": True}, timeout=30).json()
        assert begun["status"] == "queued"
    later = call(build_app(console), "GET", f"{_PATH}/{begun['id']}").json()
    assert later["status"] == "failed"
    assert "the server stopped" in later["error"]["message"]


def test_the_openai_client(client: openai.OpenAI) -> None:
    made = client.responses.create(
        model="tiny", instructions="Be brief.", input="hi", max_output_tokens=8, temperature=0, extra_body=_NO_END
    )
    assert made.status == "incomplete"
    assert made.incomplete_details is not None
    assert made.incomplete_details.reason == "max_output_tokens"
    assert made.usage is not None
    assert made.usage.output_tokens == 8
    assert client.responses.retrieve(made.id).output_text == made.output_text
    follow: Any = [{"role": "user", "content": "hi"}, *made.output, {"role": "user", "content": "go on"}]
    by_items = client.responses.create(
        model="tiny", instructions="Be brief.", input=follow, max_output_tokens=8, temperature=0
    )
    by_id = client.responses.create(
        model="tiny",
        instructions="Be brief.",
        input="go on",
        previous_response_id=made.id,
        max_output_tokens=8,
        temperature=0,
    )
    assert by_items.usage is not None
    assert by_id.usage is not None
    assert by_items.usage.input_tokens == by_id.usage.input_tokens
    assert by_items.output_text == by_id.output_text
    (item,) = client.responses.input_items.list(by_id.id)
    assert item.type == "message"
    client.responses.delete(by_id.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(by_id.id)


def test_the_openai_clients_stream(client: openai.OpenAI) -> None:
    with client.responses.stream(model="tiny", input="hi", max_output_tokens=40, temperature=0) as stream:
        events = list(stream)
        final = stream.get_final_response() if events[-1].type == "response.completed" else None
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    whole = client.responses.create(model="tiny", input="hi", max_output_tokens=40, temperature=0)
    assert text == whole.output_text
    assert events[-1].type == f"response.{whole.status}"
    assert final is None or final.output_text == text


def test_an_answer_too_long_names_the_field(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="max_output_tokens is 5,000") as refused:
        client.responses.create(model="tiny", input="hi", max_output_tokens=5000)
    assert refused.value.param == "max_output_tokens"
    with pytest.raises(openai.BadRequestError) as refused:
        client.responses.create(model="tiny", input="a" * 3000)
    assert refused.value.param == "input"


class _City(BaseModel):
    name: Literal["Rome", "Paris"]
    is_big: bool


def test_structured_output_is_valid(client: openai.OpenAI) -> None:
    made = client.responses.parse(model="tiny", input="Which city?", text_format=_City, max_output_tokens=200)
    assert made.status == "completed"
    assert made.output_parsed is not None
    assert made.output_parsed.name in ("Rome", "Paris")


_WEATHER: Any = {
    "type": "function",
    "name": "weather",
    "parameters": {
        "type": "object",
        "properties": {"city": {"enum": ["Rome", "Paris"]}},
        "required": ["city"],
        "additionalProperties": False,
    },
    "strict": True,
}


def test_a_tool_is_called_and_answered(client: openai.OpenAI) -> None:
    asked: Any = {"model": "tiny", "tools": [_WEATHER], "max_output_tokens": 300}
    made = client.responses.create(input="Rome?", tool_choice="required", parallel_tool_calls=False, **asked)
    (item,) = made.output
    assert item.type == "function_call"
    assert item.name == "weather"
    assert json.loads(item.arguments)["city"] in ("Rome", "Paris")
    answer: Any = [{"type": "function_call_output", "call_id": item.call_id, "output": "sunny"}]
    follow = client.responses.create(input=answer, previous_response_id=made.id, tool_choice="none", **asked)
    assert [output.type for output in follow.output] == ["message"]


def test_a_call_is_streamed(client: openai.OpenAI) -> None:
    with client.responses.stream(
        model="tiny",
        input="Rome?",
        tools=[_WEATHER],
        tool_choice={"type": "function", "name": "weather"},
        max_output_tokens=300,
    ) as stream:
        events = list(stream)
        (item,) = stream.get_final_response().output
    pieces = [event.delta for event in events if event.type == "response.function_call_arguments.delta"]
    assert item.type == "function_call"
    assert "".join(pieces) == item.arguments
    assert json.loads(item.arguments)["city"] in ("Rome", "Paris")
