from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.config import Settings
from engine.console import Console, open_console, prepare_home
from engine.environment.report import EnvironmentReport
from engine.errors import StoreError
from engine.inference.request import Message, Request, SamplingParams
from engine.instance import InstanceState
from engine.state import FILE_NAME as STATE_FILE
from engine.state import add_turn, new_conversation
from tests.fakes import wait_until

_HELLO = (Message("user", "Hello"),)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home", model="none", device="cpu", kv_cache_gib=0.1)


@pytest.fixture
def console(settings: Settings) -> Iterator[Console]:
    one = open_console(settings)
    yield one
    one.close()


def test_the_home_is_made(console: Console, settings: Settings) -> None:
    assert {path.name for path in settings.home.iterdir()} >= {"measurements.duckdb"}
    assert console.notices == []
    assert console.environment is None
    assert console.engine.instances() == ()


def test_the_sampler_runs(console: Console) -> None:
    wait_until(lambda: console.sampler.latest() is not None)


def test_the_named_model_is_loaded_and_its_answers_recorded(settings: Settings, tiny_folder: Path) -> None:
    console = open_console(settings.model_copy(update={"model": str(tiny_folder), "model_name": "tiny"}))
    wait_until(lambda: console.engine.instances()[0].state is InstanceState.READY, 60)
    stream = console.engine.stream(Request("tiny", _HELLO, SamplingParams(max_tokens=2)))
    list(stream)
    wait_until(lambda: console.engine.requests() == ())
    console.close()
    again = open_console(settings)
    assert [record.request_id for record in again.records.recent()] == [stream.request_id]
    again.close()


def test_a_model_that_is_not_there_is_a_notice(settings: Settings) -> None:
    console = open_console(settings.model_copy(update={"model": "/nowhere"}))
    (notice,) = console.notices
    assert "was not loaded: '/nowhere' is neither a folder nor a file here" in notice
    console.close()


def test_a_measurements_file_that_cannot_be_used_is_a_notice(settings: Settings) -> None:
    settings.home.mkdir()
    (settings.home / "measurements.duckdb").write_bytes(b"not a database" * 1_000)
    console = open_console(settings)
    assert len(console.notices) == 1
    console.close()


def test_a_state_file_that_cannot_be_used_is_a_notice_and_conversations_stay_in_memory(settings: Settings) -> None:
    settings.home.mkdir()
    (settings.home / STATE_FILE).mkdir()
    console = open_console(settings)
    (notice,) = console.notices
    assert "Conversations are kept in memory only" in notice
    conversation = add_turn(new_conversation(now_s=1.0), "hello", now_s=2.0)
    console.conversations.save(conversation)
    assert console.conversations.get(conversation.id) == conversation
    console.close()
    assert (settings.home / STATE_FILE).is_dir()


def test_a_home_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for home in (tmp_path / "file", tmp_path / "file" / "home"):
        with pytest.raises(StoreError, match=r"cannot be created: .*; set CONSOLE_HOME to a folder that you may write"):
            prepare_home(home)


def test_environment_is_remembered(console: Console) -> None:
    report = console.check_environment()
    assert isinstance(report, EnvironmentReport)
    assert console.environment is report


def test_close_ends_the_threads(settings: Settings, tiny_folder: Path) -> None:
    before = {thread.ident for thread in threading.enumerate()}
    console = open_console(settings.model_copy(update={"model": str(tiny_folder)}))
    console.close()
    left = [thread.name for thread in threading.enumerate() if thread.ident not in before and not thread.daemon]
    assert left == []
    assert not [
        thread for thread in threading.enumerate() if thread.name.startswith(("supervisor:tiny", "worker:tiny"))
    ]
