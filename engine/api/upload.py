"""A form with one file, from the connection to the disk: the file is never whole in memory, and bounded as it comes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from fastapi import Request
from fastapi.concurrency import run_in_threadpool
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect

from engine.batches.errors import FileTooLargeError
from engine.errors import BodyTimeoutError, InvalidRequestError, StoreError

FILE_FIELD = "file"
MAX_FIELDS = 8
MAX_UPLOAD_S = 900.0
MAX_FIELD_BYTES = 1_024
_MARGIN_BYTES = 64 * 2**10  # what the form has around its file


@dataclass(frozen=True, slots=True)
class Form:
    """What was sent beside the file, and the file's own name."""

    fields: Mapping[str, str]
    filename: str


class _Parts:
    """The parser's callbacks: the file goes to `target`, everything else is short."""

    def __init__(self, target: BinaryIO) -> None:
        self._target = target
        self._headers: dict[bytes, bytes] = {}
        self._name, self._value = b"", b""
        self._field: str | None = None
        self._text = bytearray()
        self.fields: dict[str, str] = {}
        self.filename: str | None = None

    def on_part_begin(self) -> None:
        self._headers = {}

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def on_header_end(self) -> None:
        self._headers[self._name.lower()] = self._value
        self._name, self._value = b"", b""

    def on_headers_finished(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition"))
        name, filename = options.get(b"name", b"").decode(errors="replace"), options.get(b"filename")
        if name == FILE_FIELD:
            self._begin_file(filename)
        else:
            self._begin_field(name)

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._field is None:
            self._target.write(data[start:end])
            return
        self._text += data[start:end]
        if len(self._text) > MAX_FIELD_BYTES:
            raise InvalidRequestError(f"{self._field} has more than {MAX_FIELD_BYTES:,} bytes: send less", self._field)

    def on_part_end(self) -> None:
        if self._field is not None:
            self.fields[self._field] = self._text.decode(errors="replace")

    def _begin_file(self, filename: bytes | None) -> None:
        if self.filename is not None:
            raise InvalidRequestError("two files were sent: send one", FILE_FIELD)
        self._field = None
        self.filename = "upload" if filename is None else filename.decode(errors="replace")

    def _begin_field(self, name: str) -> None:
        if len(self.fields) == MAX_FIELDS:
            raise InvalidRequestError(f"the form has more than {MAX_FIELDS} fields: send fewer", name)
        self._field = name
        self._text.clear()


async def receive_form(http: Request, target: Path, max_bytes: int) -> Form:
    """Write the form's file to `target`.

    Raises:
        InvalidRequestError: it is no form with one file, or was not sent to its end.
        FileTooLargeError: the file has more than `max_bytes`.
        BodyTimeoutError: it took too long to arrive.
        StoreError: it cannot be written.
    """
    _check_length(http, max_bytes)
    kind, options = parse_options_header(http.headers.get("content-type"))
    boundary = options.get(b"boundary")
    if kind != b"multipart/form-data" or not boundary:
        raise InvalidRequestError("send the file as multipart/form-data, with the fields `file` and `purpose`")
    try:
        with target.open("wb") as stream:
            parts = _Parts(stream)
            async with asyncio.timeout(MAX_UPLOAD_S):
                await _parse(http.stream(), boundary, parts, max_bytes)
    except TimeoutError as error:
        raise BodyTimeoutError(
            f"the file did not arrive within {MAX_UPLOAD_S:g} s: send it faster, or in parts"
        ) from error
    except FormParserError as error:
        raise InvalidRequestError(f"the form cannot be read ({error}): send it again") from error
    except ClientDisconnect as error:
        raise InvalidRequestError("the client left before the file had arrived: send it again") from error
    except OSError as error:
        raise StoreError(f"the file cannot be kept ({error.strerror or error}): free space there") from error
    if parts.filename is None:
        raise InvalidRequestError("the form has no file: send one as the field `file`", FILE_FIELD)
    return Form(parts.fields, parts.filename)


async def _parse(chunks: AsyncIterator[bytes], boundary: bytes, parts: _Parts, max_bytes: int) -> None:
    names = ("part_begin", "header_field", "header_value", "header_end", "headers_finished", "part_data", "part_end")
    parser = MultipartParser(boundary, {f"on_{name}": getattr(parts, f"on_{name}") for name in names})  # type: ignore[arg-type]
    received_bytes = 0
    async for chunk in chunks:
        received_bytes += len(chunk)
        if received_bytes > max_bytes + _MARGIN_BYTES:
            raise _too_large(received_bytes, max_bytes)
        await run_in_threadpool(parser.write, chunk)
    parser.finalize()


def _check_length(http: Request, max_bytes: int) -> None:
    """Refuse at once what says that it is too long."""
    length = http.headers.get("content-length", "")
    if length.isdecimal() and int(length) > max_bytes + _MARGIN_BYTES:
        raise _too_large(int(length), max_bytes)


def _too_large(num_bytes: int, max_bytes: int) -> FileTooLargeError:
    return FileTooLargeError(
        f"the file has {num_bytes:,} bytes or more, and {max_bytes:,} are the most one may have: split it"
    )
