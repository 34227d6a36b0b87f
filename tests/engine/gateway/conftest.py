"""A gateway over a fake local engine and servers of the tests' own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from engine.clock import SystemClock
from engine.config import Settings
from engine.engine import Engine
from engine.gateway import Gateway, Routes
from engine.instance import InstanceState
from engine.latency.record import RequestRecord
from engine.remote import Remotes, RemoteSpec
from engine.scheduling.router import BreakerRules
from engine.state.database import open_database
from engine.state.serving import ServingStore
from tests.engine.remote.openai_server import OpenAiServer, openai_server
from tests.fakes import FakeBackend, fake_spec, wait_until

RULES = BreakerRules(failures_to_open=2, open_s=0.2)


@pytest.fixture
def backend() -> FakeBackend:
    return FakeBackend()


@pytest.fixture
def records() -> list[RequestRecord]:
    return []


@pytest.fixture
def gateway(tmp_path: Path, backend: FakeBackend, records: list[RequestRecord]) -> Iterator[Gateway]:
    """Nothing is loaded yet."""
    clock = SystemClock()
    engine = Engine(Settings(home=tmp_path), records.append, clock, lambda: backend)
    with open_database("sqlite://") as database:
        store = ServingStore(database)
        remotes = Remotes(store, 20.0, engine.note_served, clock, {})
        one = Gateway(lambda: engine, remotes, Routes(store), clock, RULES)
        yield one
        backend.load_gate.set()
        one.close()
        engine.close()


@pytest.fixture
def load(gateway: Gateway) -> Callable[[str], None]:
    """Load a fake local model and wait for it."""

    def load_one(name: str) -> None:
        engine = gateway._engine()
        engine.load(fake_spec(name))
        wait_until(lambda: any(info.name == name and info.state is InstanceState.READY for info in engine.instances()))

    return load_one


@pytest.fixture
def add(gateway: Gateway) -> Iterator[Callable[..., OpenAiServer]]:
    """Start a server, add it as a remote instance and wait for it."""
    with ExitStack() as servers:

        def add_one(name: str, **fields: object) -> OpenAiServer:
            server = servers.enter_context(openai_server())
            gateway.remotes.add(RemoteSpec(**{"name": name, "base_url": server.url, "model": "there", **fields}))
            wait_until(lambda: gateway.remotes.find(name).info().state is InstanceState.READY)
            return server

        yield add_one
        gateway.close()  # first, so that no server waits for a request that hangs
