from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine.clock import SystemClock
from engine.inference.request import Finished, Request
from engine.instance import InstanceState
from engine.latency.record import RequestRecord
from engine.recording import make_record
from engine.remote import RemoteInfo, Remotes, RemoteSpec
from engine.state.database import Database, open_database, sqlite_url
from engine.state.serving import ServingStore
from tests.engine.remote.openai_server import OpenAiServer, openai_server
from tests.fakes import wait_until


@pytest.fixture
def server() -> Iterator[OpenAiServer]:
    with openai_server() as one:
        yield one


@pytest.fixture
def records() -> list[RequestRecord]:
    return []


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with open_database(sqlite_url(tmp_path / "state.sqlite")) as opened:
        yield opened


@pytest.fixture
def environ() -> dict[str, str]:
    """The console's environment, for keys."""
    return {}


@pytest.fixture
def remotes(database: Database, records: list[RequestRecord], environ: dict[str, str]) -> Iterator[Remotes]:
    def keep(request: Request, finished: Finished) -> None:
        records.append(make_record(request, finished))

    opened = Remotes(ServingStore(database), 20.0, keep, SystemClock(), environ)
    yield opened
    opened.close()


@pytest.fixture
def add(remotes: Remotes, server: OpenAiServer) -> Callable[..., RemoteInfo]:
    """Add the server as `far` and wait for its first check; fields of the spec may be given."""

    def add_one(state: InstanceState = InstanceState.READY, key: str | None = None, **fields: object) -> RemoteInfo:
        spec = RemoteSpec(**{"name": "far", "base_url": server.url, "model": "there", "check_every_s": 0.1, **fields})
        remotes.add(spec, key)
        wait_until(lambda: remotes.find(spec.name).info().state is state)
        return remotes.find(spec.name).info()

    return add_one
