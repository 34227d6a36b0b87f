"""Code that is shown runs and means what the playground did."""

from __future__ import annotations

import ast
import json
import shlex
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from dashboard.components.code_view import as_curl, as_python, request_body
from engine import Message, SamplingParams
from engine.api.chat_schema import ChatCompletionRequest

_TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=80)
_ASKED = st.builds(
    SamplingParams,
    temperature=st.floats(0, 2),
    top_k=st.integers(0, 100),
    min_p=st.floats(0, 1),
    repetition_penalty=st.floats(0.5, 2),
    seed=st.none() | st.integers(0, 2**31),
    stop=st.lists(_TEXTS, max_size=3).map(tuple),
    logit_bias=st.dictionaries(st.integers(0, 1000), st.floats(-100, 100), max_size=3),
    max_tokens=st.none() | st.integers(1, 1000),
    top_logprobs=st.none() | st.integers(0, 5),
)


@given(text=_TEXTS, sampling=_ASKED)
def test_body_means_the_same_request(text: str, sampling: SamplingParams) -> None:
    body = request_body("m", [Message("user", text)], sampling)
    request = ChatCompletionRequest.model_validate_json(json.dumps(body)).to_request()
    assert request.messages == (Message("user", text),)
    assert request.sampling == sampling


@given(text=_TEXTS)
def test_curl_survives_the_shell(text: str) -> None:
    body = request_body("m", [Message("user", text)], SamplingParams())
    words = shlex.split(as_curl("http://127.0.0.1:8501", body, needs_key=False).replace("\\\n", ""))
    assert words[1] == "http://127.0.0.1:8501/v1/chat/completions"
    assert json.loads(words[words.index("-d") + 1]) == body


@given(text=_TEXTS, sampling=_ASKED)
def test_python_is_a_program_with_the_same_arguments(text: str, sampling: SamplingParams) -> None:
    body = request_body("m", [Message("user", text)], sampling)
    tree = ast.parse(as_python("http://127.0.0.1:8501", body, needs_key=True))
    (call,) = (
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "create"
    )
    given_arguments: dict[str, Any] = {item.arg or "": ast.literal_eval(item.value) for item in call.keywords}
    assert {**given_arguments.pop("extra_body", {}), **given_arguments} == body


def test_defaults_are_left_out() -> None:
    assert request_body("m", [], SamplingParams()) == {"model": "m", "messages": []}


def test_keys_are_named_only_where_needed() -> None:
    assert "CONSOLE_API_KEY" not in as_curl("u", {}, needs_key=False) + as_python("u", {}, needs_key=False)
    assert "$CONSOLE_API_KEY" in as_curl("u", {}, needs_key=True)
    assert 'os.environ["CONSOLE_API_KEY"]' in as_python("u", {}, needs_key=True)
