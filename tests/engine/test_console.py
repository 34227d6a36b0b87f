from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from engine.config import Settings
from engine.console import Console, check_guarded, open_console, prepare_home
from engine.environment.check import Check, Finding
from engine.environment.context import CheckContext
from engine.errors import SettingsError, StoreError
from engine.inference.images import ImagePart
from engine.inference.request import Message, Request, SamplingParams
from engine.instance import InstanceState
from engine.state import FILE_NAME as STATE_FILE
from engine.state import add_turn, new_conversation
from engine.state.api_keys import Scope
from tests.engine.environment.builders import check, passing, use_checks
from tests.fakes import FakeClock, wait_until
from tests.vision_models import picture_bytes

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
    assert (console.environment.latest(), console.environment.progress()) == (None, None)
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


def test_a_report_of_the_environment_outlives_the_console(
    console: Console, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_checks(monkeypatch, check("host.a"))
    assert console.environment.start()
    console.environment.wait(20)
    report = console.environment.latest()
    assert report is not None
    console.close()
    again = open_console(settings)
    assert again.environment.latest() == report
    again.close()


def test_the_checks_look_at_this_console(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[CheckContext] = []

    def build(context: CheckContext) -> tuple[Check, ...]:
        seen.append(context)
        return (check("host.a"),)

    monkeypatch.setattr("engine.environment.report.FAMILIES", {"host": ("Host", build)})
    console = open_console(settings.model_copy(update={"port": 9_999, "environment_profile": "autoglm-9b"}))
    console.environment.start()
    console.environment.wait(20)
    console.close()
    subject = seen[-1]
    assert (subject.home, subject.port, subject.is_serving) == (settings.home, 9_999, True)
    assert subject.nvml is console.nvml
    assert subject.clock is console.clock
    assert subject.profile.gpu.memory_gb.recommend == 40


def test_closing_cancels_a_run_whose_check_hangs(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = threading.Event()

    def hang() -> Finding:
        opened.wait(60)
        return passing()

    use_checks(monkeypatch, check("host.a", hang, 60))
    console = open_console(settings)
    console.environment.start()
    try:
        console.close()
        assert console.environment.progress() is None
        assert not opened.is_set()
    finally:
        opened.set()


def test_close_ends_the_threads(settings: Settings, tiny_folder: Path) -> None:
    before = set(threading.enumerate())
    console = open_console(settings.model_copy(update={"model": str(tiny_folder)}))
    console.close()
    left = [thread for thread in threading.enumerate() if thread not in before]
    assert [thread.name for thread in left if not thread.daemon] == []
    assert [thread.name for thread in left if thread.name.startswith(("supervisor:", "worker:"))] == []


def test_what_cannot_be_closed_keeps_nothing_else_open(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    console = open_console(settings)
    close_remotes, close_records = console.gateway.close, console.records.close
    closed: list[str] = []

    def fail() -> None:
        close_remotes()
        raise TimeoutError("a remote instance did not close")

    def close() -> None:
        close_records()
        closed.append("records")

    monkeypatch.setattr(console.gateway, "close", fail)
    monkeypatch.setattr(console.records, "close", close)
    with pytest.raises(TimeoutError):
        console.close()
    assert closed == ["records"]


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.7", "console.example.com"])
def test_an_address_that_others_reach_needs_a_key(settings: Settings, host: str) -> None:
    settings.home.mkdir()
    open_settings = settings.model_copy(update={"host": host})
    with pytest.raises(SettingsError, match=r"can be reached from other machines: set CONSOLE_API_KEYS") as refusal:
        check_guarded(open_settings)
    assert repr(host) in str(refusal.value)
    check_guarded(settings)
    check_guarded(open_settings.model_copy(update={"api_keys": (SecretStr("one"),)}))


def test_a_key_made_on_the_page_guards_such_an_address_until_it_is_revoked(console: Console) -> None:
    open_settings = console.settings.model_copy(update={"host": "0.0.0.0"})
    console.keys.create("readings", {Scope.METRICS})
    with pytest.raises(SettingsError):
        check_guarded(open_settings)
    made = console.keys.create("farm", {Scope.INFERENCE})
    check_guarded(open_settings)
    console.keys.revoke(made.key.id)
    with pytest.raises(SettingsError):
        check_guarded(open_settings)


def test_state_that_cannot_be_read_guards_nothing(settings: Settings) -> None:
    settings.home.mkdir()
    (settings.home / STATE_FILE).write_bytes(b"not a database" * 1_000)
    with pytest.raises(StoreError):
        check_guarded(settings.model_copy(update={"host": "0.0.0.0"}))


def test_usage_of_keys_is_written_at_the_end(settings: Settings) -> None:
    console = open_console(settings)
    made = console.keys.create("farm", {Scope.INFERENCE})
    console.keys.identify(made.secret)
    console.close()
    again = open_console(settings)
    (key,) = again.keys.list()
    assert key.usage.num_requests == 1
    again.close()


def test_what_was_deleted_is_gone_for_good_at_a_later_start_or_deletion(settings: Settings) -> None:
    clock = FakeClock()
    console = open_console(settings, clock)
    image = console.images.keep(ImagePart(picture_bytes()), "x.png")
    talks = [add_turn(new_conversation(now_s=float(index)), "?", now_s=1.0, images=(image,)) for index in range(3)]
    for talk in talks:
        console.conversations.save(talk)
    console.delete_conversation(talks[0].id)
    clock.advance(31 * 86_400.0)
    assert console.conversations.restore(talks[0].id)
    console.delete_conversation(talks[0].id)
    clock.advance(31 * 86_400.0)
    console.delete_conversation(talks[1].id)
    assert not console.conversations.restore(talks[0].id)
    assert console.images.read(image) is not None
    console.delete_conversation(talks[2].id)
    console.close()
    clock.advance(31 * 86_400.0)
    again = open_console(settings, clock)
    assert [again.conversations.restore(talk.id) for talk in talks] == [False, False, False]
    assert again.images.read(image) is None
    again.close()
