"""A console on fakes, handed to the pages as the server does, and a way to open a page through the entrypoint."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from dashboard.resources import give_console
from engine import Console, Engine, InstanceInfo, InstanceState, ModelSpec, Settings, open_console
from engine.latency import RequestRecord
from tests.engine.latency.builders import PLAIN
from tests.fakes import FakeBackend, wait_until

ENTRYPOINT = Path(__file__).resolve().parents[2] / "dashboard" / "app.py"

OpenPage = Callable[..., AppTest]


@pytest.fixture
def backend() -> FakeBackend:
    """What answers for the models of `console`."""
    return FakeBackend()


@pytest.fixture
def console(tmp_path: Path, backend: FakeBackend) -> Iterator[Console]:
    """A console with no model yet; what is loaded runs on `backend`."""
    settings = Settings(home=tmp_path / "home", model="none")
    opened = open_console(settings)
    load_lock = opened.engine.load_lock  # the lab takes its turn at it too
    opened.engine = Engine(settings, opened.records.append, opened.clock, lambda: backend)
    opened.engine.load_lock = load_lock
    wait_until(lambda: opened.sampler.latest() is not None)
    give_console(opened)
    yield opened
    give_console(None)
    st.cache_resource.clear()
    opened.close()


@pytest.fixture
def open_page(console: Console) -> OpenPage:
    """Open a page by its name with the given query parameters, as a link does; it has run without an exception."""

    def open_named(name: str, **query: str | list[str]) -> AppTest:
        page = AppTest.from_file(str(ENTRYPOINT), default_timeout=30).run()
        if name != "overview":
            page.switch_page(f"../pages/{name}.py")
        for key, value in query.items():
            page.query_params[key] = value
        page.run()
        assert not page.exception, page.exception[0].value
        return page

    return open_named


def load(console: Console, name: str, state: InstanceState = InstanceState.READY) -> InstanceInfo:
    """Load a fake model and wait until it is in `state`."""
    folder = console.settings.home / "fake-model"
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text("{}")
    console.engine.load(ModelSpec(str(folder), name))
    wait_until(lambda: instance(console, name).state is state)
    return instance(console, name)


def instance(console: Console, name: str) -> InstanceInfo:
    """The reading of one instance."""
    return next(info for info in console.engine.instances() if info.name == name)


def keep(console: Console, *records: RequestRecord) -> None:
    """Store records and make them readable at once."""
    for record in records:
        console.records.append(record)
    console.records.flush()


def recent(console: Console, age_s: float = 60.0, **changes: object) -> RequestRecord:
    """A plain successful record received `age_s` ago, TTFT 250 ms, TPOT 100 ms, E2E 1.26 s."""
    return replace(PLAIN, received_at_s=console.clock.wall() - age_s, **changes)


def texts(page: AppTest) -> str:
    """All Markdown and captions of a page, to look for a word in."""
    return "\n".join(element.value for element in (*page.markdown, *page.caption))
