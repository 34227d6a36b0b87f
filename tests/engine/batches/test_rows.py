from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from engine.batches import rows
from engine.batches.rows import RowReader, index_rows

_URL = "/v1/chat/completions"
_GOOD: dict[str, Any] = {"custom_id": "a", "method": "POST", "url": _URL, "body": {"model": "m"}}


def _file(tmp_path: Path, *lines: dict[str, Any] | bytes) -> Path:
    file = tmp_path / "rows.jsonl"
    file.write_bytes(b"\n".join(line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines))
    return file


def test_rows_are_found_and_read(tmp_path: Path) -> None:
    file = _file(tmp_path, _GOOD, b"", {**_GOOD, "custom_id": "ä"}, b"  ")
    index = index_rows(file, _URL)
    assert (index.errors, index.models) == ((), {"m"})
    assert [(place.line, place.custom_id) for place in index.places] == [(1, "a"), (3, "ä")]
    with RowReader(file, _URL) as reader:
        found = [reader.read(place) for place in index.places]
    assert [(row.line, row.custom_id, row.body) for row in found] == [
        (1, "a", {"model": "m"}),
        (3, "ä", {"model": "m"}),
    ]


@pytest.mark.parametrize(
    ("line", "code", "param"),
    [
        (b"{", "invalid_json_line", None),
        (b"[]", "invalid_json_line", None),
        (b"\xff\xfe{}", "invalid_json_line", None),
        (b"[" * 100_000, "invalid_json_line", None),
        (b'{"custom_id":' + b"9" * 5_000 + b"}", "invalid_json_line", None),
        ({**_GOOD, "custom_id": None}, "invalid_custom_id", "custom_id"),
        ({**_GOOD, "custom_id": ""}, "invalid_custom_id", "custom_id"),
        ({**_GOOD, "custom_id": "x" * 513}, "invalid_custom_id", "custom_id"),
        ({**_GOOD, "custom_id": "\ud800"}, "invalid_custom_id", "custom_id"),
        ({**_GOOD, "method": "GET"}, "invalid_method", "method"),
        ({**_GOOD, "url": "/v1/embeddings"}, "invalid_url", "url"),
        ({**_GOOD, "body": "text"}, "invalid_body", "body"),
        ({**_GOOD, "body": {"model": "m", "stream": True}}, "invalid_body", "body.stream"),
        ({**_GOOD, "body": {}}, "invalid_body", "body.model"),
        ({**_GOOD, "body": {"model": "nobody"}}, "model_not_found", "body.model"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: dict[str, Any] | bytes, code: str, param: str | None) -> None:
    file = _file(tmp_path, {**_GOOD, "custom_id": "first"}, line)
    (error,) = index_rows(file, _URL, lambda model: None if model == "m" else f"no {model}").errors
    assert (error.line, error.code, error.param) == (2, code, param)
    assert error.message.startswith("line 2: ")
    assert len(error.message) < 300


def test_two_rows_with_one_id(tmp_path: Path) -> None:
    (error,) = index_rows(_file(tmp_path, _GOOD, _GOOD), _URL).errors
    assert (error.line, error.code) == (2, "duplicate_custom_id")
    assert "line 1" in error.message


@pytest.mark.parametrize("content", [b"", b"\n \n"])
def test_a_file_without_rows(tmp_path: Path, content: bytes) -> None:
    (error,) = index_rows(_file(tmp_path, content), _URL).errors
    assert (error.code, error.line) == ("empty_file", None)


def test_a_line_that_is_too_long_is_not_taken_for_several(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "MAX_LINE_BYTES", 100)
    file = _file(tmp_path, b"x" * 350, _GOOD)
    index = index_rows(file, _URL)
    assert [(error.line, error.code) for error in index.errors] == [(1, "line_too_long")]
    assert [place.line for place in index.places] == [2]
    with RowReader(file, _URL) as reader:
        assert reader.read(index.places[0]).custom_id == "a"


def test_too_many_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "MAX_ROWS", 3)
    file = _file(tmp_path, *({**_GOOD, "custom_id": str(number)} for number in range(10)))
    (error,) = index_rows(file, _URL).errors
    assert (error.line, error.code) == (4, "too_many_rows")


def test_the_list_of_errors_is_bounded(tmp_path: Path) -> None:
    assert len(index_rows(_file(tmp_path, *[b"{"] * 500), _URL).errors) == rows.MAX_ERRORS
