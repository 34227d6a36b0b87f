"""Code that is shown runs and means what the playground did."""

from __future__ import annotations

import ast
import base64
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dashboard.components.code_view import as_curl, as_python, request_body
from engine import Message, SamplingParams
from engine.api.chat_schema import ChatCompletionRequest
from engine.state import KeptImage, Said

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
    body = request_body("m", [Said("user", text)], sampling)
    request = ChatCompletionRequest.model_validate_json(json.dumps(body)).to_request()
    assert request.messages == (Message("user", text),)
    assert request.sampling == sampling


@given(text=_TEXTS)
def test_curl_survives_the_shell(text: str) -> None:
    body = request_body("m", [Said("user", text)], SamplingParams())
    words = shlex.split(as_curl("http://127.0.0.1:8501", body, needs_key=False).replace("\\\n", ""))
    assert words[1] == "http://127.0.0.1:8501/v1/chat/completions"
    assert json.loads(words[words.index("-d") + 1]) == body


@given(text=_TEXTS, sampling=_ASKED)
def test_python_is_a_program_with_the_same_arguments(text: str, sampling: SamplingParams) -> None:
    body = request_body("m", [Said("user", text)], sampling)
    tree = ast.parse(as_python("http://127.0.0.1:8501", body, needs_key=True))
    (call,) = (
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "create"
    )
    given_arguments: dict[str, Any] = {item.arg or "": ast.literal_eval(item.value) for item in call.keywords}
    assert {**given_arguments.pop("extra_body", {}), **given_arguments} == body


_IMAGES = (KeptImage("a" * 64, "image/png", "my screen's $HOME.png"), KeptImage("b" * 64, "image/jpeg", "b.jpg"))
_TALK = [Said("user", "What `is` $this\\?\nBODY\n'\"", _IMAGES), Said("assistant", "A"), Said("user", "", _IMAGES[1:])]
_FILES = {"my screen's $HOME.png": b"first" * 30_000, "b.jpg": b"second"}


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that the code runs in, with the files that it reads."""
    for name, data in _FILES.items():
        (tmp_path / name).write_bytes(data)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _sent() -> list[dict[str, Any]]:
    """The messages as the server gets them."""

    def url(media_type: str, name: str) -> dict[str, Any]:
        data = base64.b64encode(_FILES[name]).decode()
        return {"type": "image_url", "image_url": {"url": f"data:{media_type};base64,{data}"}}

    first, second = url("image/png", _IMAGES[0].name), url("image/jpeg", "b.jpg")
    return [
        {"role": "user", "content": [first, second, {"type": "text", "text": _TALK[0].text}]},
        {"role": "assistant", "content": "A"},
        {"role": "user", "content": [second]},
    ]


def _asked_images() -> list[KeptImage]:
    return [image for said in _TALK for image in said.images]


def test_curl_reads_the_pictures_files(files: Path) -> None:
    curl = files / "curl"
    curl.write_text("#!/bin/sh\nexec cat\n")
    curl.chmod(0o755)
    command = as_curl("http://a", request_body("m", _TALK, SamplingParams()), _asked_images(), needs_key=True)
    environment = os.environ | {"PATH": f"{files}:{os.environ['PATH']}"}
    body = subprocess.run(["sh", "-c", command], env=environment, capture_output=True, check=True).stdout
    assert json.loads(body) == {"model": "m", "messages": _sent()}


@pytest.mark.usefixtures("files")
def test_python_reads_the_pictures_files(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    class OpenAI:
        def __init__(self, **_: object) -> None:
            self.chat = self.completions = self
            self.choices, self.message, self.content = [self], self, "An answer"

        def create(self, **arguments: Any) -> OpenAI:
            asked.update(arguments)
            return self

    module = ModuleType("openai")
    module.OpenAI = OpenAI  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "openai", module)
    program = as_python("http://a", request_body("m", _TALK, SamplingParams()), _asked_images(), needs_key=False)
    exec(compile(program, "shown.py", "exec"), {})  # what a person who copied it does
    assert asked == {"model": "m", "messages": _sent()}


def test_defaults_are_left_out() -> None:
    assert request_body("m", [], SamplingParams()) == {"model": "m", "messages": []}


def test_keys_are_named_only_where_needed() -> None:
    assert "CONSOLE_API_KEY" not in as_curl("u", {}, needs_key=False) + as_python("u", {}, needs_key=False)
    assert "$CONSOLE_API_KEY" in as_curl("u", {}, needs_key=True)
    assert 'os.environ["CONSOLE_API_KEY"]' in as_python("u", {}, needs_key=True)
