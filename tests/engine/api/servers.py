"""The API as tests reach it: through ASGI in this thread, or through a real server on a loopback port."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import uvicorn
from starlette.applications import Starlette

from engine.api.app import Api
from engine.config import Settings
from engine.console import Console, open_console, record_keeper
from engine.engine import Engine
from engine.instance import InstanceState
from engine.latency import RequestRecord
from engine.web_server import BoundedHttp
from tests.fakes import FakeBackend, fake_spec, wait_until


def build_app(console: Console | None) -> Starlette:
    """The API over an open console."""
    api = Api()
    api.attach(console)
    return Starlette(routes=api.routes)


@contextmanager
def fake_console(settings: Settings, backend: FakeBackend) -> Iterator[Console]:
    """A console whose engine runs the fake; nothing is loaded yet."""
    console = open_console(settings.model_copy(update={"model": "none"}))
    console.engine = Engine(
        console.settings,
        record_keeper(console.records, console.quotas),
        console.clock,
        lambda: backend,
        on_refusal=console.records.append,
    )
    try:
        yield console
    finally:
        backend.load_gate.set()
        console.close()


def load_ready(console: Console, name: str = "m") -> None:
    """Load a model of that name and wait for it."""
    console.engine.load(fake_spec(name))
    await_ready(console)


def await_ready(console: Console) -> None:
    """Wait until every instance answers."""
    wait_until(lambda: all(info.state is InstanceState.READY for info in console.engine.instances()), 60)


def call(app: Starlette, method: str, path: str, **options: Any) -> httpx.Response:
    """One request through ASGI."""

    async def send() -> httpx.Response:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://console") as client:
            return await client.request(method, path, **options)

    return asyncio.run(asyncio.wait_for(send(), 30))


def await_records(console: Console, num_records: int) -> tuple[RequestRecord, ...]:
    """The records of that many requests, which are kept after their answers were given."""

    def are_kept() -> bool:
        console.records.flush()
        return len(console.records.recent()) == num_records

    wait_until(are_kept)
    return tuple(console.records.recent())


@contextmanager
def serve(app: Starlette) -> Iterator[str]:
    """The URL of a uvicorn server in a thread."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = uvicorn.Config(app, http=BoundedHttp, log_config=None, lifespan="off", timeout_graceful_shutdown=2)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="test-server")
        thread.start()
        try:
            wait_until(lambda: server.started)
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(10)
