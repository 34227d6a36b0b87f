from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from starlette.applications import Starlette

from engine.console import Console
from tests.engine.api.servers import call, serve

_PATH = "/v1/files"


@pytest.fixture
def fake(app: Starlette) -> Iterator[openai.OpenAI]:
    with serve(app) as url, openai.OpenAI(base_url=f"{url}/v1", api_key="unused", max_retries=0, timeout=30) as one:
        yield one


def _send(app: Starlette, content: bytes = b"{}\n", **fields: Any) -> httpx.Response:
    return call(app, "POST", _PATH, data={"purpose": "batch", **fields}, files={"file": ("rows.jsonl", content)})


def _kept(console: Console) -> list[Path]:
    return [path for path in (console.settings.home / "batches").rglob("*") if path.is_file()]


def test_a_file_from_upload_to_deletion(fake: openai.OpenAI, console: Console) -> None:
    content = bytes(range(256)) * 5_000 + b"\r\n--not a boundary\r\n"
    file = fake.files.create(file=("../ä.jsonl", content), purpose="batch")
    assert (file.object, file.bytes, file.purpose, file.status) == ("file", len(content), "batch", "processed")
    assert file.filename == "../ä.jsonl"
    assert fake.files.retrieve(file.id) == file
    assert fake.files.content(file.id).read() == content
    assert [path.parent.name for path in _kept(console)] == ["files"]
    assert fake.files.delete(file.id).deleted
    assert _kept(console) == []
    for ask in (fake.files.retrieve, fake.files.content, fake.files.delete):
        with pytest.raises(openai.NotFoundError) as raised:
            ask(file.id)
        assert raised.value.code == "file_not_found"


def test_lists(fake: openai.OpenAI) -> None:
    made = [fake.files.create(file=(f"{index}.jsonl", b"{}"), purpose="batch").id for index in range(5)]
    assert [file.id for file in fake.files.list(limit=2)] == made[::-1]
    assert [file.id for file in fake.files.list(limit=2, order="asc")] == made
    assert fake.files.list(purpose="batch_output").data == []
    with pytest.raises(openai.BadRequestError):
        fake.files.list(limit=0)


@pytest.mark.parametrize(
    ("fields", "param"),
    [({"purpose": "fine-tune"}, "purpose"), ({"expires_after[seconds]": "3600"}, "expires_after[seconds]")],
)
def test_fields_that_cannot_be_honoured_are_named(
    app: Starlette, console: Console, fields: dict[str, str], param: str
) -> None:
    response = _send(app, **fields)
    assert (response.status_code, response.json()["error"]["param"]) == (400, param)
    assert _kept(console) == []


@pytest.mark.parametrize(
    "options",
    [
        {"data": {"purpose": "batch"}},
        {"json": {"purpose": "batch"}},
        {"content": b"{}", "headers": {"content-type": "multipart/form-data"}},
        {"content": b"no form", "headers": {"content-type": "multipart/form-data; boundary=x"}},
        {"data": {"purpose": "batch"}, "files": [("file", b"a"), ("file", b"b")]},
        {"data": {"purpose": "x" * 2_000}, "files": {"file": b"a"}},
        {"data": {str(number): "x" for number in range(20)}, "files": {"file": b"a"}},
        {"files": {"other": b"a"}},
    ],
    ids=["no file", "json", "no boundary", "no form", "two files", "long field", "many fields", "other file"],
)
def test_what_is_no_form_with_one_file_is_refused(app: Starlette, console: Console, options: dict[str, Any]) -> None:
    response = call(app, "POST", _PATH, **options)
    assert response.status_code == 400, response.text
    assert response.json()["error"]["type"] == "invalid_request_error"
    assert _kept(console) == []


@pytest.mark.parametrize("tells_its_length", [True, False])
def test_a_file_that_is_too_large_is_refused_before_its_end(
    app: Starlette, console: Console, monkeypatch: pytest.MonkeyPatch, tells_its_length: bool
) -> None:
    monkeypatch.setattr("engine.api.files.MAX_FILE_BYTES", 1_000)
    num_read = 0
    head = b'--x\r\ncontent-disposition: form-data; name="file"; filename="a"\r\n\r\n'

    async def chunks() -> Any:
        nonlocal num_read
        yield head
        for _ in range(1_000):
            num_read += 1
            yield b"y" * 10_000

    headers = {"content-type": "multipart/form-data; boundary=x"}
    if tells_its_length:
        headers["content-length"] = "10000000"
    response = call(app, "POST", _PATH, content=chunks(), headers=headers)
    assert (response.status_code, response.json()["error"]["code"]) == (413, "file_too_large")
    assert _kept(console) == []
    assert num_read < 1_000


def test_there_is_a_bound_on_all_files_together(app: Starlette, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.batches.files.MAX_FILES", 1)
    assert _send(app).status_code == 200
    response = _send(app)
    assert (response.status_code, response.json()["error"]["code"]) == (413, "file_too_large")


def test_a_larger_file_than_other_bodies_may_be(app: Starlette, console: Console) -> None:
    content = b"x" * (console.settings.max_body_mib * 2**20 + 1)
    assert _send(app, content).json()["bytes"] == len(content)
