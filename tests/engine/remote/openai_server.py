"""A server on loopback that speaks OpenAI's API as a test tells it to, well or badly."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class OpenAiServer(ThreadingHTTPServer):
    """`answer` writes what comes back to a POST, `models` what `GET /v1/models` lists; `seen` are the POSTs' bodies,
    `keys` the authorizations of all requests. What hangs does so until `released`."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.models: Any = {"object": "list", "data": [{"id": "there"}]}
        self.models_status = 200
        self.answer: Answer = say("Hello ", "world")
        self.seen: list[tuple[str, dict[str, Any]]] = []
        self.keys: list[str | None] = []
        self.is_silent = False
        self.released = threading.Event()
        self.left = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


Answer = Callable[["_Handler"], None]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: OpenAiServer

    def do_GET(self) -> None:
        self.server.keys.append(self.headers.get("authorization"))
        if self.server.is_silent:
            self.server.released.wait(30)
        self.send_whole(self.server.models_status, json.dumps(self.server.models).encode())

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.seen.append((self.path, body))
        self.server.keys.append(self.headers.get("authorization"))
        self.server.answer(self)

    def send_whole(self, status: int, content: bytes, kind: str = "application/json") -> None:
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def begin_events(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream; charset=utf-8")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()

    def send_event(self, data: str) -> None:
        content = f"data: {data}\n\n".encode()
        self.wfile.write(f"{len(content):x}\r\n".encode() + content + b"\r\n")
        self.wfile.flush()

    def end_events(self) -> None:
        self.wfile.write(b"0\r\n\r\n")

    def cut(self) -> None:
        """Close the connection where it is."""
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


def chunk(delta: dict[str, Any] | None = None, **fields: Any) -> str:
    """An event of a chat's answer."""
    choice = {"index": 0, "delta": delta or {}, "finish_reason": fields.pop("finish_reason", None)}
    choice |= {"logprobs": fields.pop("logprobs")} if "logprobs" in fields else {}
    return json.dumps({"id": "1", "object": "chat.completion.chunk", "choices": [choice], **fields})


def usage(num_prompt_tokens: int, num_output_tokens: int) -> str:
    """The event that tells what it took."""
    counts = {"prompt_tokens": num_prompt_tokens, "completion_tokens": num_output_tokens}
    return json.dumps({"id": "1", "choices": [], "usage": counts})


def send(*events: str, then: Answer | None = None) -> Answer:
    """These events one after another; `then` instead of the proper end."""

    def answer(handler: _Handler) -> None:
        handler.begin_events()
        for event in events:
            handler.send_event(event)
        (then or _Handler.end_events)(handler)

    return answer


def say(*words: str, reason: str = "stop") -> Answer:
    """An answer as it should be."""
    deltas = [chunk({"content": word}) for word in words]
    return send(chunk({"role": "assistant"}), *deltas, chunk(finish_reason=reason), usage(7, len(words)), "[DONE]")


def refuse(status: int, body: Any) -> Answer:
    """A status other than success."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return lambda handler: handler.send_whole(status, content)


def hang(handler: _Handler) -> None:
    """Say nothing until released; then note whether the client has left."""
    handler.server.released.wait(30)


def speak_on(handler: _Handler) -> None:
    """Words without end, until the client leaves."""
    with suppress(OSError):
        handler.begin_events()
        while not handler.server.released.wait(0.005):
            handler.send_event(chunk({"content": "on "}))
    handler.server.left.set()
    handler.close_connection = True


@contextmanager
def openai_server() -> Iterator[OpenAiServer]:
    """One that listens."""
    server = OpenAiServer()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), name="openai-server")
    thread.start()
    try:
        yield server
    finally:
        server.released.set()
        server.shutdown()
        thread.join(10)
        server.server_close()


def texts(events: Sequence[Any]) -> str:
    """The text of an answer's events."""
    return "".join(getattr(event, "text", "") for event in events)
