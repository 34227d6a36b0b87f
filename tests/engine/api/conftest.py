from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.applications import Starlette

from engine.config import Settings
from engine.console import Console
from tests.engine.api.servers import build_app, fake_console, load_ready
from tests.fakes import FakeBackend


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.instance._FIRST_PAUSE_S", 0.01)


@pytest.fixture
def backend() -> FakeBackend:
    return FakeBackend()


@pytest.fixture
def console(tmp_path: Path, backend: FakeBackend, _short_pauses: None) -> Iterator[Console]:
    """A console with the fake model `m` ready."""
    with fake_console(Settings(home=tmp_path), backend) as one:
        load_ready(one)
        yield one


@pytest.fixture
def app(console: Console) -> Starlette:
    return build_app(console)
