from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
from starlette.applications import Starlette

from engine.config import Settings
from engine.console import Console, open_console
from tests.engine.api.servers import await_ready, build_app, fake_console, load_ready, serve
from tests.fakes import FakeBackend


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.instance.instance._FIRST_PAUSE_S", 0.01)


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


@pytest.fixture(scope="session")
def tiny_console(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Console]:
    """A console with the tiny Llama ready as `tiny`."""
    home = tmp_path_factory.mktemp("tiny-home")
    settings = Settings(home=home, model=str(tiny_folder), model_name="tiny", device="cpu", kv_cache_gib=0.1)
    console = open_console(settings)
    await_ready(console)
    yield console
    console.close()


@pytest.fixture(scope="session")
def tiny_url(tiny_console: Console) -> Iterator[str]:
    """The address of a server over `tiny_console`."""
    with serve(build_app(tiny_console)) as url:
        yield url


@pytest.fixture(scope="session")
def client(tiny_url: str) -> Iterator[openai.OpenAI]:
    """OpenAI's client for `tiny_url`."""
    with openai.OpenAI(base_url=f"{tiny_url}/v1", api_key="unused", max_retries=0, timeout=30) as one:
        yield one
