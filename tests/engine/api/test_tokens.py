from __future__ import annotations

from typing import Any

import httpx
import pytest
from starlette.applications import Starlette

from engine.console import Console
from tests.engine.api.servers import call, load_ready


def _post(url: str, path: str, **body: Any) -> httpx.Response:
    return httpx.post(f"{url}{path}", json=body, timeout=30)


@pytest.mark.parametrize("prefix", ["", "/v1"])
def test_there_and_back(tiny_url: str, prefix: str) -> None:
    answer = _post(tiny_url, f"{prefix}/tokenize", model="tiny", prompt="Grüße <|im_end|>").json()
    assert answer["count"] == len(answer["tokens"]) == len("Grüße ".encode()) + 1
    assert answer["max_model_len"] == 2048
    assert answer["token_strs"] is None
    back = _post(tiny_url, f"{prefix}/detokenize", model="tiny", tokens=answer["tokens"]).json()
    assert back == {"prompt": "Grüße <|im_end|>"}


def test_the_strings_of_the_tokens(tiny_url: str) -> None:
    answer = _post(tiny_url, "/tokenize", prompt="a b", return_token_strs=True).json()
    assert answer["token_strs"] == ["a", "Ġ", "b"]


def test_messages_go_through_the_template(tiny_url: str) -> None:
    messages = [{"role": "user", "content": "hi"}]
    tokens = _post(tiny_url, "/tokenize", messages=messages).json()["tokens"]
    text = _post(tiny_url, "/detokenize", tokens=tokens).json()["prompt"]
    assert text == "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    tokens = _post(tiny_url, "/tokenize", messages=messages, add_generation_prompt=False).json()["tokens"]
    assert _post(tiny_url, "/detokenize", tokens=tokens).json()["prompt"] == "<|im_start|>user\nhi<|im_end|>\n"


def test_a_prompt_counts_as_it_does_in_an_answer(tiny_url: str) -> None:
    messages = [{"role": "user", "content": "hi"}]
    count = _post(tiny_url, "/tokenize", messages=messages).json()["count"]
    answer = _post(tiny_url, "/v1/chat/completions", model="tiny", messages=messages, max_tokens=1).json()
    assert answer["usage"]["prompt_tokens"] == count


@pytest.mark.parametrize(
    ("path", "body", "param", "words"),
    [
        ("/tokenize", {}, "prompt", "send either prompt or messages"),
        ("/tokenize", {"prompt": "a", "messages": []}, "prompt", "send either prompt or messages"),
        ("/tokenize", {"prompt": ""}, "prompt", "prompt is empty"),
        ("/tokenize", {"messages": []}, "prompt", "nothing to tokenize"),
        (
            "/tokenize",
            {"messages": [{"role": "user", "content": "a"}], "add_special_tokens": True},
            "add_special_tokens",
            "not allowed with messages",
        ),
        ("/tokenize", {"prompt": "a", "chat_template": "x"}, "chat_template", "not supported"),
        ("/detokenize", {"tokens": [258]}, "tokens", "tokens holds token 258"),
        ("/detokenize", {"tokens": [-1]}, "tokens", "tokens holds token -1"),
        ("/detokenize", {"tokens": ["a"]}, "tokens.0", "valid integer"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(
    tiny_url: str, path: str, body: dict[str, Any], param: str, words: str
) -> None:
    response = _post(tiny_url, path, **body)
    assert response.status_code == 400
    assert response.json()["error"]["param"] == param
    assert words in response.json()["error"]["message"]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"prompt": "ab" * 500_000}, "prompt"),
        ({"messages": [{"role": "user", "content": "ab" * 500_000}]}, "messages"),
    ],
)
def test_what_no_prompt_can_be_is_not_cut_into_tokens(tiny_url: str, body: dict[str, Any], param: str) -> None:
    response = _post(tiny_url, "/tokenize", **body)
    assert response.status_code == 400
    error = response.json()["error"]
    assert (error["code"], error["param"]) == ("context_length_exceeded", param)
    assert "at least 541,6" in error["message"]  # letters of the marks may stand for several bytes
    assert "holds 2,048" in error["message"]


def test_a_text_of_the_whole_context_is(tiny_url: str) -> None:
    assert _post(tiny_url, "/tokenize", prompt="a" * 2048).json()["count"] == 2048


def test_the_model_must_be_named_where_there_are_several(app: Starlette, console: Console) -> None:
    assert call(app, "POST", "/tokenize", json={"prompt": "ab"}).json()["tokens"] == [97, 98]
    load_ready(console, "n")
    response = call(app, "POST", "/tokenize", json={"prompt": "ab"})
    assert response.status_code == 400
    assert response.json()["error"]["message"] == "model is missing and 2 models are ready: name one"
    assert call(app, "POST", "/tokenize", json={"prompt": "ab", "model": "n"}).status_code == 200
    assert call(app, "POST", "/detokenize", json={"tokens": [97], "model": "x"}).status_code == 404
