"""What hostile or broken clients do to a server process over loopback: each is answered as it should be, the process
stays as small as it was, the next request is served, and the engine holds nothing of it."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from tests.fakes import wait_until

_ROOT = Path(__file__).parents[3]
_CHAT = "/v1/chat/completions"
_SHORT: dict[str, Any] = {"model": "tiny", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 3}
_ENDLESS: dict[str, Any] = {**_SHORT, "max_tokens": 1_900, "logit_bias": {"257": -100}, "stream": True}
_BODY_TIMEOUT_S = 2.0
_MIB = 2**20
_NUM_CONNECTIONS = 10_000
# What a process may grow by, at its peak, over what it was after its first answers: Python makes 72 bytes of each `{}`
# of a body of 8 MiB, that is 200 MiB.
_MOST_GROWTH_BYTES = 320 * _MIB
_COUNTS = re.compile(r'^vllm:num_requests_(?:running|waiting)\{model_name="tiny"\} (\S+)$', re.MULTILINE)


@dataclass(frozen=True, slots=True)
class _Server:
    process: subprocess.Popen[bytes]
    port: int
    client: httpx.Client

    @property
    def peak_bytes(self) -> int:
        """The largest resident size since `forget_peak`."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) * 1024

    def forget_peak(self) -> None:
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=30)

    def num_requests(self) -> float:
        """The engine's own count: running and waiting."""
        counts = _COUNTS.findall(self.client.get("/metrics").text)
        assert len(counts) == 2
        return sum(map(float, counts))

    def answers(self) -> bool:
        response = self.client.post(_CHAT, json=_SHORT)
        return response.status_code == 200 and response.json()["usage"]["completion_tokens"] > 0


@pytest.fixture(scope="module")
def process(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[_Server]:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    home = tmp_path_factory.mktemp("abused")
    variables = {
        "CONSOLE_HOME": str(home / "home"),
        "CONSOLE_PORT": str(port),
        "CONSOLE_MODEL": str(tiny_folder),
        "CONSOLE_MODEL_NAME": "tiny",
        "CONSOLE_DEVICE": "cpu",
        "CONSOLE_MAX_RUNNING": "4",
        "CONSOLE_MAX_WAITING": "16",
        "CONSOLE_KV_CACHE_GIB": "0.1",
        "CONSOLE_BODY_TIMEOUT_S": str(_BODY_TIMEOUT_S),
    }
    command = [sys.executable, "-m", "tests.engine.api.abused_server"]
    with (
        (home / "log").open("wb") as log,
        subprocess.Popen(command, cwd=_ROOT, env={**os.environ, **variables}, stderr=log) as child,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client,
    ):
        try:
            wait_until(lambda: child.poll() is not None or _is_ready(client), 120)
            yield _Server(child, port, client)
        finally:
            child.terminate()
            child.wait(30)


def _is_ready(client: httpx.Client) -> bool:
    try:
        return client.get("/readyz").status_code == 200
    except httpx.TransportError:
        return False


@pytest.fixture
def server(process: _Server) -> Iterator[_Server]:
    """Well before the test, and as well after it."""
    assert process.answers()
    process.forget_peak()
    before_bytes = process.peak_bytes
    yield process
    assert process.peak_bytes - before_bytes < _MOST_GROWTH_BYTES
    assert process.answers()
    wait_until(lambda: process.num_requests() == 0)


def _send(connection: socket.socket, body: dict[str, Any]) -> None:
    raw = json.dumps(body).encode()
    head = f"POST {_CHAT} HTTP/1.1\r\nHost: c\r\nContent-Type: application/json\r\nContent-Length: {len(raw)}\r\n\r\n"
    connection.sendall(head.encode() + raw)


def _drop(connection: socket.socket) -> None:
    """Break it off: the server is told by a reset."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


@pytest.mark.slow
def test_ten_thousand_connections_that_open_and_drop(server: _Server) -> None:
    """One in ten asks for an endless answer first, one stops amid its head, one amid its body."""
    deadline_s = time.monotonic() + 150
    for number in range(_NUM_CONNECTIONS):
        assert time.monotonic() < deadline_s
        connection = server.connect()
        if number % 10 == 0:
            _send(connection, _ENDLESS)
        elif number % 10 == 1:
            connection.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: c")
        elif number % 10 == 2:
            connection.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: c\r\nContent-Length: 99\r\n\r\n{")
        _drop(connection)
    # A connection of its own, so that all that were made before it are accepted by then.
    assert httpx.get(f"http://127.0.0.1:{server.port}/healthz", timeout=60).status_code == 200
    # Accepted is not read: the last of them may still come to fill the queue for a moment before they are found gone.
    wait_until(server.answers)
    wait_until(lambda: server.num_requests() == 0)


@pytest.mark.parametrize("is_chunked", [False, True])
def test_a_body_of_a_hundred_megabytes(server: _Server, is_chunked: bool) -> None:
    pieces = (b"[" * _MIB for _ in range(100))
    content: Any = pieces if is_chunked else b"[" * (100 * _MIB)
    response = server.client.post(_CHAT, content=content, headers={"content-type": "application/json"})
    assert response.status_code == 413
    assert response.json()["error"]["code"] == "body_too_large"


def test_openais_client_is_told_of_a_body_that_is_too_large(server: _Server) -> None:
    """Also the one that does not read before it has sent all."""

    async def send() -> None:
        url = f"http://127.0.0.1:{server.port}/v1"
        async with openai.AsyncOpenAI(base_url=url, api_key="unused", max_retries=0, timeout=60) as client:
            await client.chat.completions.create(model="tiny", messages=[{"role": "user", "content": "x" * 50 * _MIB}])

    with pytest.raises(openai.APIStatusError, match="at most 8,388,608 are read") as refusal:
        asyncio.run(send())
    assert refusal.value.status_code == 413


@pytest.mark.parametrize(
    ("path", "head", "piece", "end"),
    [
        (_CHAT, b'{"messages":[', b"{}", b"]}"),
        (_CHAT, b'{"messages":[' + b'{"role":"user","content":[' + b"{}," * 2_000 + b"{}]},", b"[]", b"]}"),
        (_CHAT, b'{"messages":[', b'{"role":"user","content":"a"}', b"]}"),
        (_CHAT, b'{"stop":[', b"0", b"]}"),
        ("/v1/completions", b'{"prompt":[', b"{}", b"]}"),
        ("/v1/responses", b'{"input":[', b"{}", b"]}"),
        ("/v1/embeddings", b'{"input":["",', b"0", b"]}"),
        ("/tokenize", b'{"messages":[', b"[]", b"]}"),
        ("/detokenize", b'{"tokens":[', b'""', b"]}"),
    ],
)
def test_a_body_as_large_as_may_be_of_tiny_parts(
    server: _Server, path: str, head: bytes, piece: bytes, end: bytes
) -> None:
    """Each part that is wrong would cost a kilobyte, were all of them looked at."""
    num_pieces = (8 * _MIB - len(head) - 100) // (len(piece) + 1)
    raw = head + b",".join([piece] * num_pieces) + end
    response = server.client.post(path, content=raw, headers={"content-type": "application/json"})
    assert response.status_code == 400


def test_a_body_of_a_million_fields(server: _Server) -> None:
    raw = b"{" + b",".join(b'"%d":0' % number for number in range(700_000)) + b"}"
    response = server.client.post(_CHAT, content=raw, headers={"content-type": "application/json"})
    assert response.status_code == 400


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (b"[" * 100_000, "http_error"),
        (b'{"a":' * 100_000, "http_error"),
        (b'{"model": "tiny", "messages": [{"role": "user", "content": "\xff\xfe"}]}', "http_error"),
        (json.dumps({**_SHORT, "max_tokens": 1_000_000}).encode(), "context_length_exceeded"),
        (
            json.dumps({**_SHORT, "messages": [{"role": "user", "content": "x" * 1_000_000}]}).encode(),
            "context_length_exceeded",
        ),
    ],
    ids=["nested lists", "nested objects", "no UTF-8", "a million tokens", "a megabyte of prompt"],
)
def test_what_cannot_be_answered_is_the_callers_error(server: _Server, raw: bytes, code: str) -> None:
    response = server.client.post(_CHAT, content=raw, headers={"content-type": "application/json"})
    assert response.status_code == 400
    assert response.json()["error"]["code"] == code


def test_a_body_that_comes_byte_by_byte(server: _Server) -> None:
    """It is refused when its time is over, and the connection ends."""
    with server.connect() as connection:
        connection.settimeout(0.05)
        connection.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: c\r\nContent-Length: 99999\r\n\r\n")
        answer, deadline_s = b"", time.monotonic() + 60
        while b"body_timeout" not in answer and time.monotonic() < deadline_s:
            try:
                connection.sendall(b"x")
                answer += connection.recv(4_096)
            except TimeoutError:
                continue
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"connection: close" in answer


def test_a_client_that_reads_byte_by_byte_and_leaves(server: _Server) -> None:
    with server.connect() as connection:
        _send(connection, _ENDLESS)
        read = b"".join(connection.recv(1) for _ in range(400))
        assert read.startswith(b"HTTP/1.1 200 ")
        assert server.num_requests() == 1
        _drop(connection)
    wait_until(lambda: server.num_requests() == 0)


def test_a_worker_killed_amid_an_answer(server: _Server) -> None:
    with server.client.stream("POST", _CHAT, json=_ENDLESS) as response:
        lines = response.iter_lines()
        assert next(lines).startswith("data: ")
        server.process.send_signal(signal.SIGUSR1)
        *_, error, done = (line for line in lines if line)
    assert json.loads(error.removeprefix("data: "))["error"]["code"] == "worker_died"
    assert done == "data: [DONE]"
    wait_until(lambda: _is_ready(server.client))
