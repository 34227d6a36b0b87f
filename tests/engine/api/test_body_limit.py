from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.types import Message, Receive, Scope, Send

from engine.api.body_limit import Bodies, BodyBounds, BodyLimit
from engine.config import Settings
from tests.engine.api.servers import build_app, call, fake_console
from tests.fakes import FakeBackend

_PATHS = ["/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/embeddings", "/v1/tokenize", "/tokenize"]
_MOST = 8 * 2**20


class _App:
    """Keeps the bodies that come through; it answers with nothing."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.next: Message | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        message = await receive()
        assert not message["more_body"]
        self.bodies.append(message["body"])
        self.next = await receive()


class _Connection:
    """What a client sends, message by message, and what it is answered. It then waits."""

    def __init__(self, messages: Iterable[Message], length: int | None = None, path: str = "/v1/x") -> None:
        self._messages = list(messages)
        headers = [] if length is None else [(b"content-length", str(length).encode())]
        self.scope: Scope = {"type": "http", "path": path, "headers": headers}
        self.sent: list[Message] = []
        self.num_received = 0

    async def receive(self) -> Message:
        if self.num_received == len(self._messages):
            await asyncio.sleep(3_600)
        self.num_received += 1
        return self._messages[self.num_received - 1]

    async def send(self, message: Any) -> None:
        self.sent.append(message)

    @property
    def error(self) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self.sent[1]["body"])
        return {"status": self.sent[0]["status"], **answer["error"]}


def _pieces(*sizes: int, ends: bool = True) -> list[Message]:
    last = len(sizes) - 1
    return [
        {"type": "http.request", "body": b"x" * size, "more_body": place < last or not ends}
        for place, size in enumerate(sizes)
    ]


_LEFT: Message = {"type": "http.disconnect"}


def _run(connection: _Connection, bodies: Bodies) -> _App:
    app = _App()
    asyncio.run(asyncio.wait_for(BodyLimit(app, bodies)(connection.scope, connection.receive, connection.send), 30))
    return app


def _bodies(max_bytes: int = 100, timeout_s: float = 30.0) -> Bodies:
    bodies = Bodies()
    bodies.bounds = BodyBounds(max_bytes, timeout_s)
    return bodies


@pytest.mark.parametrize("sizes", [(0,), (100,), (40, 0, 60), (1,) * 100])
def test_a_body_within_its_bound_comes_whole(sizes: tuple[int, ...]) -> None:
    connection = _Connection([*_pieces(*sizes), _LEFT], sum(sizes))
    app = _run(connection, _bodies())
    assert app.bodies == [b"x" * sum(sizes)]
    assert app.next == _LEFT


def test_one_that_tells_its_size_is_refused_unread() -> None:
    connection = _Connection(_pieces(101), 101)
    assert _run(connection, _bodies()).bodies == []
    assert connection.num_received == 0
    assert connection.error == {
        "status": 413,
        "message": "the body has 101 bytes, at most 100 are read: send less, or raise CONSOLE_MAX_BODY_MIB",
        "type": "invalid_request_error",
        "param": None,
        "code": "body_too_large",
    }


@pytest.mark.parametrize("length", [None, 3])
def test_one_that_comes_in_pieces_is_refused_where_it_passes_the_bound(length: int | None) -> None:
    connection = _Connection(_pieces(60, 60, 60), length)
    assert _run(connection, _bodies()).bodies == []
    assert connection.num_received == 2
    assert (connection.error["status"], connection.error["code"]) == (413, "body_too_large")


def test_one_that_does_not_end_in_time_is_refused() -> None:
    connection = _Connection(_pieces(1, 1, ends=False))
    assert _run(connection, _bodies(timeout_s=0.05)).bodies == []
    assert (connection.error["status"], connection.error["code"]) == (408, "body_timeout")
    assert "2 bytes of it came" in connection.error["message"]
    assert (b"connection", b"close") in connection.sent[0]["headers"]


def test_a_client_that_leaves_amid_its_body_is_not_answered() -> None:
    connection = _Connection([*_pieces(10, ends=False), _LEFT])
    assert _run(connection, _bodies()).bodies == []
    assert connection.sent == []


def test_uploads_are_left_to_their_endpoint() -> None:
    connection = _Connection([*_pieces(1_000), _LEFT], 1_000, path="/v1/files")
    assert _run(connection, _bodies()).bodies == [b"x" * 1_000]


def test_all_bodies_together_are_bounded_and_small_ones_are_read_all_the_same() -> None:
    """Those that wait for their ends hold all there is; once they have gone, there is room again."""
    size = 2**20
    bodies = _bodies(size)
    app = _App()
    limit = BodyLimit(app, bodies)

    async def fill() -> list[_Connection]:
        held = [_Connection(_pieces(size, ends=False)) for _ in range(40)]
        tasks = [asyncio.create_task(limit(one.scope, one.receive, one.send)) for one in held]
        await asyncio.sleep(0)
        late = [_Connection([*_pieces(size), _LEFT]), _Connection([*_pieces(1_000), _LEFT])]
        for one in late:
            await limit(one.scope, one.receive, one.send)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return late

    refused, _ = asyncio.run(asyncio.wait_for(fill(), 30))
    assert (refused.error["status"], refused.error["code"]) == (503, "bodies_full")
    assert (b"retry-after", b"1") in refused.sent[0]["headers"]
    assert [len(body) for body in app.bodies] == [1_000]
    assert [len(body) for body in _run(_Connection([*_pieces(size), _LEFT]), bodies).bodies] == [size]


@pytest.mark.parametrize("path", [*_PATHS, "/v1/detokenize", "/detokenize", "/admin/models", "/v1/nowhere"])
def test_every_mount_has_the_bound_before_the_console_is_open(path: str) -> None:
    response = call(build_app(None), "POST", path, content=b"x" * (_MOST + 1))
    assert response.status_code == 413
    assert "at most 8,388,608 are read" in response.json()["error"]["message"]


def test_size_is_looked_at_before_keys(tmp_path: Path) -> None:
    with fake_console(Settings(home=tmp_path, api_keys="secret"), FakeBackend()) as console:
        app = build_app(console)
        assert call(app, "POST", _PATHS[0], content=b"x" * (_MOST + 1)).status_code == 413
        assert call(app, "POST", _PATHS[0], content=b"x").status_code == 401


def test_the_operator_sets_the_bounds(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, max_body_mib=1, body_timeout_s=7)
    assert BodyBounds.of(settings) == BodyBounds(2**20, 7.0)
    with fake_console(settings, FakeBackend()) as console:
        assert call(build_app(console), "POST", _PATHS[0], content=b"x" * (2**20 + 1)).status_code == 413


def test_before_the_console_is_open_the_defaults_hold() -> None:
    assert BodyBounds() == BodyBounds.of(Settings())


def test_a_long_conversation_fits(app: Starlette) -> None:
    """128k tokens of English are about half a MiB."""
    body = {"model": "m", "messages": [{"role": "user", "content": "word " * 500_000}]}
    assert call(app, "POST", _PATHS[0], json=body).status_code == 200
