"""The rows of a batch's file: one JSON object a line, each a request with an id of its own.

A file is read twice: once to see that every row can be sent, which keeps only where each of them is, and once row by
row as they are sent. So a large file is never whole in memory.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Self

from engine.batches.batch import LineError
from engine.inference.tools import is_text

MAX_ROWS = 50_000
MAX_LINE_BYTES = 8 * 2**20
MAX_ID_LENGTH = 512
MAX_ERRORS = 100


class Place(NamedTuple):
    """Where a row is in its file. `line` counts from 1."""

    line: int
    custom_id: str
    offset: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Row:
    """One request: what the client calls it, and the body of the endpoint."""

    line: int
    custom_id: str
    body: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Index:
    """A file's rows; or what is wrong with it, `MAX_ERRORS` findings at most. `models` are those that rows name."""

    places: tuple[Place, ...]
    errors: tuple[LineError, ...]
    models: frozenset[str]


class _BadLineError(Exception):
    def __init__(self, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.code, self.param = code, param


def index_rows(file: Path, endpoint: str, refuse_model: Callable[[str], str | None] = lambda _: None) -> Index:
    """Read the whole file. `refuse_model` gives the sentence that says why a model cannot be asked for, or None.

    Raises:
        OSError: the file cannot be read.
    """
    places: list[Place] = []
    errors: list[LineError] = []
    seen: dict[str, int] = {}
    models: dict[str, str | None] = {}
    with file.open("rb") as stream:
        for number, offset, line in _lines(stream):
            if len(errors) == MAX_ERRORS:
                break
            try:
                row = read_row(line, number, endpoint)
                _check_new(row, seen)
                _check_model(row, models, refuse_model)
            except _BadLineError as error:
                errors.append(LineError(error.code, f"line {number}: {error}", number, error.param))
                if error.code == "too_many_rows":
                    break
                continue
            places.append(Place(number, row.custom_id, offset, len(line)))
    if not places and not errors:
        errors.append(LineError("empty_file", "the file has no rows: upload one with at least one request"))
    return Index(tuple(places), tuple(errors), frozenset(models))


def read_row(line: bytes, number: int, endpoint: str) -> Row:
    """The row in `line`; what is wrong with it is raised, for `index_rows` to tell."""
    if len(line) > MAX_LINE_BYTES:
        raise _BadLineError("line_too_long", f"it has more than {MAX_LINE_BYTES:,} bytes: send a shorter request")
    values = _parse(line)
    identifier = values.get("custom_id")
    if not isinstance(identifier, str) or not 0 < len(identifier) <= MAX_ID_LENGTH or not is_text(identifier):
        raise _BadLineError(
            "invalid_custom_id",
            f"custom_id must be a text of 1 to {MAX_ID_LENGTH} characters that no other row has",
            "custom_id",
        )
    if values.get("method") != "POST":
        raise _BadLineError("invalid_method", f"method is {_show(values.get('method'))}; it must be 'POST'", "method")
    if values.get("url") != endpoint:
        raise _BadLineError(
            "invalid_url", f"url is {_show(values.get('url'))}; the batch's endpoint is {endpoint!r}", "url"
        )
    return Row(number, identifier, _read_body(values.get("body")))


def _parse(line: bytes) -> dict[str, Any]:
    try:
        values = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise _BadLineError("invalid_json_line", f"it is not valid JSON: {error}") from error
    if not isinstance(values, dict):
        raise _BadLineError("invalid_json_line", "it is not a JSON object: send one with custom_id, method, url, body")
    return values


def _read_body(body: Any) -> dict[str, Any]:
    if not isinstance(body, dict):
        raise _BadLineError("invalid_body", "body must be a JSON object: the body of the endpoint", "body")
    if body.get("stream"):
        raise _BadLineError("invalid_body", "body.stream is true, and a batch does not stream: drop it", "body.stream")
    if not isinstance(body.get("model"), str):
        raise _BadLineError("invalid_body", "body.model must name a model", "body.model")
    return body


def _check_new(row: Row, seen: dict[str, int]) -> None:
    if row.custom_id in seen:
        raise _BadLineError(
            "duplicate_custom_id",
            f"custom_id {_show(row.custom_id)} is that of line {seen[row.custom_id]} too: give each row its own",
            "custom_id",
        )
    if len(seen) == MAX_ROWS:
        raise _BadLineError("too_many_rows", f"a file may have {MAX_ROWS:,} rows at most: split it")
    seen[row.custom_id] = row.line


def _check_model(row: Row, known: dict[str, str | None], refuse: Callable[[str], str | None]) -> None:
    model = row.body["model"]
    if model not in known:
        known[model] = refuse(model)
    reason = known[model]
    if reason is not None:
        raise _BadLineError("model_not_found", reason, "body.model")


def _show(value: Any) -> str:
    """Enough of a value to find it by."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _lines(stream: BinaryIO) -> Iterator[tuple[int, int, bytes]]:
    """Number, offset and bytes of every line that is not blank, one too long cut off just beyond the bound."""
    number, offset = 0, 0
    while line := stream.readline(MAX_LINE_BYTES + 1):
        number += 1
        size_bytes = len(line)
        rest = line
        while not rest.endswith(b"\n") and (rest := stream.readline(MAX_LINE_BYTES)):
            size_bytes += len(rest)
        if not line.isspace():
            yield number, offset, line
        offset += size_bytes


class RowReader:
    """Reads single rows of a file that was indexed."""

    def __init__(self, file: Path, endpoint: str) -> None:
        self._endpoint = endpoint
        self._handle = os.open(file, os.O_RDONLY)

    def read(self, place: Place) -> Row:
        """The row that is there."""
        return read_row(os.pread(self._handle, place.size_bytes, place.offset), place.line, self._endpoint)

    def close(self) -> None:
        """Let the file go."""
        os.close(self._handle)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
