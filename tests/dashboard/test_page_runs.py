from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import MagicMock

import pytest
from streamlit.proto.ClientState_pb2 import ClientState
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from streamlit.runtime.app_session import AppSession
from streamlit.runtime.script_data import ScriptData
from streamlit.runtime.scriptrunner.script_cache import ScriptCache

from dashboard import page_runs

_PAGE = """
import streamlit as st

@st.fragment(run_every=1)
def refresh():
    st.text("fragment")

refresh()
st.text("drawn last")
"""


@pytest.fixture(autouse=True)
def in_turn(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("streamlit.runtime.get_instance", MagicMock())
    before = AppSession.request_rerun, AppSession._clear_queue
    page_runs.keep_what_is_drawn()
    yield
    AppSession.request_rerun, AppSession._clear_queue = before  # type: ignore[method-assign]


async def _close(session: AppSession) -> None:
    session.shutdown()
    while session._scriptrunner is not None:
        await asyncio.sleep(0.005)
    session._script_event_loop.close()


async def _sent_after_a_refresh_at_the_end(page: Path) -> list[ForwardMsg]:
    """What reaches the browser when a fragment asks for its refresh while the loop has yet to pass on a whole run."""
    session = AppSession(ScriptData(str(page), is_hello=False), MagicMock(), ScriptCache(), None, {})
    session.request_rerun(ClientState())
    runner = session._scriptrunner
    assert runner is not None
    assert runner._script_thread is not None
    time.sleep(0.01)
    runner._script_thread.join(20)  # the loop stands still meanwhile, as under load
    (fragment_id,) = session._fragment_storage._fragments
    session.request_rerun(ClientState(fragment_id=fragment_id))
    for _ in range(1_000):
        await asyncio.sleep(0.005)
        if session._scriptrunner is None:
            break
    messages = session.flush_browser_queue()
    await _close(session)
    return [message for message in messages if message.WhichOneof("type") == "delta"]


def _texts(messages: list[ForwardMsg]) -> set[str]:
    return {message.delta.new_element.text.body for message in messages}


def _has_gap(messages: list[ForwardMsg]) -> bool:
    """Whether the browser is told to draw something behind a place that it was told nothing of."""
    num_children: Counter[tuple[int, ...]] = Counter()
    for message in messages:
        *parent, index = message.metadata.delta_path
        if index > num_children[tuple(parent)]:
            return True
        num_children[tuple(parent)] = max(num_children[tuple(parent)], index + 1)
    return False


@pytest.fixture
def page(tmp_path: Path) -> Path:
    path = tmp_path / "page.py"
    path.write_text(_PAGE)
    return path


def test_a_refresh_at_the_end_of_a_run_takes_nothing_from_it(page: Path) -> None:
    messages = asyncio.run(_sent_after_a_refresh_at_the_end(page))
    assert {"fragment", "drawn last"} <= _texts(messages)
    assert not _has_gap(messages)


def test_streamlit_still_ignores_the_last_events(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When this fails, that part of dashboard/page_runs.py can go."""
    monkeypatch.setattr(AppSession, "request_rerun", page_runs._request_at_once)
    assert "drawn last" not in _texts(asyncio.run(_sent_after_a_refresh_at_the_end(page)))


def test_streamlit_still_leaves_gaps(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When this fails, that part of dashboard/page_runs.py can go."""
    monkeypatch.setattr(AppSession, "_clear_queue", page_runs._clear_queue)
    assert _has_gap(asyncio.run(_sent_after_a_refresh_at_the_end(page)))


def test_a_script_that_goes_on_after_its_stop_is_not_waited_for_long(
    page: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page_runs, "MAX_WAIT_S", 0.05)
    page.write_text("import time; time.sleep(1)\n" + _PAGE)

    async def run() -> float:
        session = AppSession(ScriptData(str(page), is_hello=False), MagicMock(), ScriptCache(), None, {})
        session.request_rerun(ClientState())
        first = session._scriptrunner
        assert first is not None
        session.request_script_stop()
        since_s = time.monotonic()
        session.request_rerun(ClientState())
        while session._scriptrunner is first:
            await asyncio.sleep(0.005)
        took_s = time.monotonic() - since_s
        assert first._script_thread is not None
        first._script_thread.join(20)
        await _close(session)
        return took_s

    assert asyncio.run(run()) < 0.9
