"""Connections that are slow, large or broken in their heads, on a real socket."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket
from websockets.sync.client import connect

from engine import web_server
from engine.web_server import MAX_HEAD_BYTES, build_server
from tests.engine.api.servers import serve

_HEAD = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\n"
_REFUSED = b"POST /refuse HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n" % (8 * MAX_HEAD_BYTES)


async def _refuse(_: Request) -> Response:
    return PlainTextResponse("too large", 413)


async def _echo(http: Request) -> Response:
    return PlainTextResponse(await http.body())


async def _echo_text(socket: WebSocket) -> None:
    await socket.accept()
    async for text in socket.iter_text():
        await socket.send_text(text)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    routes = [
        Route("/", _echo, methods=["GET", "POST"]),
        Route("/refuse", _refuse, methods=["POST"]),
        WebSocketRoute("/socket", _echo_text),
    ]
    with serve(Starlette(routes=routes)) as one:
        yield one


@pytest.fixture
def _hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web_server, "HEAD_TIMEOUT_S", 0.3)


@contextmanager
def _connect(url: str) -> Iterator[socket.socket]:
    where = urlsplit(url)
    assert where.hostname is not None
    with socket.create_connection((where.hostname, where.port or 80), timeout=30) as connection:
        yield connection


def _read_all(connection: socket.socket) -> bytes:
    """Up to the server's end of the connection."""
    pieces = []
    while piece := connection.recv(65536):
        pieces.append(piece)
    return b"".join(pieces)


@pytest.mark.usefixtures("_hasty")
@pytest.mark.parametrize("sent", [b"GET /", b"GET / HTTP/1.1\r\nhost: a\r\nx: "])
def test_a_head_that_does_not_end_is_given_up(url: str, sent: bytes) -> None:
    with _connect(url) as connection:
        connection.sendall(sent)
        assert _read_all(connection).startswith(b"HTTP/1.1 408 ")


@pytest.mark.usefixtures("_hasty")
@pytest.mark.parametrize("sent", [b"", b"\r\n\r\n"])
def test_a_connection_on_which_no_head_begins_is_closed(url: str, sent: bytes) -> None:
    with _connect(url) as connection:
        connection.sendall(sent)
        assert _read_all(connection) == b""


def test_the_rest_of_a_body_that_was_answered_is_no_head(url: str) -> None:
    """It is read and dropped, so that the client gets to its answer."""
    with _connect(url) as connection:
        connection.sendall(_REFUSED)
        for _ in range(8):
            connection.sendall(b"x" * MAX_HEAD_BYTES)
        connection.sendall(_HEAD.replace(b"host", b"connection: close\r\nhost") + b"ok")
        answers = _read_all(connection)
    assert answers.startswith(b"HTTP/1.1 413 ")
    assert answers.count(b"HTTP/1.1 200 ") == 1


@pytest.mark.usefixtures("_hasty")
def test_the_rest_of_such_a_body_is_not_read_for_ever(url: str) -> None:
    with _connect(url) as connection:
        connection.sendall(_REFUSED + b"x")
        assert _read_all(connection).count(b"HTTP/1.1 ") == 1


@pytest.mark.usefixtures("_hasty")
def test_a_byte_now_and_then_does_not_hold_a_connection(url: str) -> None:
    with _connect(url) as connection, pytest.raises(ConnectionError):  # noqa: PT012
        connection.sendall(b"GET / HTTP/1.1\r\nx: ")
        until_s = time.monotonic() + 60
        while time.monotonic() < until_s:
            connection.sendall(b"a")
            time.sleep(0.05)


@pytest.mark.usefixtures("_hasty")
def test_the_next_head_on_a_connection_is_bounded_too(url: str) -> None:
    with _connect(url) as connection:
        connection.sendall(_HEAD + b"ok" + b"GET / HT")
        answered = _read_all(connection)
        assert answered.startswith(b"HTTP/1.1 200 ")
        assert b"HTTP/1.1 408 " in answered


@pytest.mark.usefixtures("_hasty")
def test_a_body_may_take_longer_than_a_head(url: str) -> None:
    with _connect(url) as connection:
        connection.sendall(_HEAD + b"o")
        time.sleep(1.0)
        connection.sendall(b"k")
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("piece", [b"x: " + b"a" * 100 + b"\r\n", b"a" * 4_000], ids=["many headers", "one header"])
def test_a_head_without_end_is_refused(url: str, piece: bytes) -> None:
    with _connect(url) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\ny: ")
        try:
            for _ in range(0, 16 * MAX_HEAD_BYTES, len(piece)):
                connection.sendall(piece)
            assert _read_all(connection).startswith(b"HTTP/1.1 431 ")
        except ConnectionError:
            return  # what was sent after the refusal has the system drop the refusal too


@pytest.mark.usefixtures("_hasty")
def test_a_web_socket_is_no_head_and_stays_open(url: str) -> None:
    """The pages' connection: a browser whose page stands still sends nothing on it."""
    with connect(url.replace("http:", "ws:") + "/socket") as socket:
        time.sleep(1)  # longer than a head may take
        socket.send("still there")
        assert socket.recv(timeout=10) == "still there"


def test_requests_that_come_at_once_are_answered_in_turn(url: str) -> None:
    with _connect(url) as connection:
        last = _HEAD.replace(b"host", b"connection: close\r\nhost")
        connection.sendall(_HEAD + b"ab" + _HEAD + b"cd" + last + b"ef")
        answered = _read_all(connection)
    assert [body in answered for body in (b"ab", b"cd", b"ef")] == [True] * 3
    assert answered.count(b"HTTP/1.1 200 ") == 3


def test_a_head_as_large_as_the_bound_is_read(url: str) -> None:
    assert httpx.get(url, headers={"x": "a" * (MAX_HEAD_BYTES - 500)}).status_code == 200


def test_both_programs_are_served_so() -> None:
    config = build_server(Starlette()).config
    assert config.http is web_server.BoundedHttp
    assert config.timeout_graceful_shutdown == 10
