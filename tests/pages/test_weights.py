"""The weights page over a real cache."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from dashboard.components.formats import plain
from engine import Console, ModelSpec
from engine.errors import WeightsError
from engine.models.planner import Planner
from engine.weights.acquire import acquire
from engine.weights.blobs import BlobStore
from engine.weights.cache import WeightsCache
from engine.weights.cache_jobs import Damaged
from engine.weights.hub import Hub
from engine.weights.inventory import CacheEntry
from engine.weights.upkeep import Damage, discard
from tests.engine.weights.hub_models import REPO, model_files
from tests.engine.weights.hub_server import Fault, HubServer, serve_hub
from tests.fakes import wait_until
from tests.pages.conftest import OpenPage, load, texts


def fill(console: Console) -> None:
    """The sample's file, as if it had been unpacked."""

    def convert(_file: Path, folder: Path, _on_progress: object) -> None:
        (folder / "config.json").write_text("{}")

    acquire("sample", console.weights.cache, convert, lambda *_: None, hub=Hub()).lease.close()


def test_an_empty_cache_says_what_fills_it(open_page: OpenPage) -> None:
    page = open_page("weights")
    assert "The weights cache is empty" in page.info[0].value
    assert "No model folder is known" in page.info[1].value


@pytest.mark.model
def test_what_is_cached_is_listed_and_can_be_removed(console: Console, open_page: OpenPage) -> None:
    fill(console)
    page = open_page("weights")
    assert list(page.dataframe[0].value["Name"]) == ["SmolLM2-135M-Instruct.Q4_1"]
    assert "1 model" in texts(page)
    entry = page.selectbox(key="remove-entry")
    entry.set_value(entry.options[0]).run()
    next(button for button in page.button if button.label == "Remove").click().run()
    assert console.weights.cache.entries() == ()
    assert "The weights cache is empty" in page.info[0].value


@pytest.mark.model
def test_what_was_cut_short_is_no_model_and_can_be_removed(console: Console, open_page: OpenPage) -> None:
    fill(console)
    partial = BlobStore(console.weights.cache.root).partials / ("ab" * 32)
    partial.parent.mkdir(parents=True, exist_ok=True)
    partial.write_bytes(bytes(1000))
    page = open_page("weights")
    assert "1 model and 1 unfinished download, " in texts(page)
    assert f"a file, {'ab' * 6}" in list(page.dataframe[0].value["Name"])
    entry = page.selectbox(key="remove-entry")
    entry.set_value(next(option for option in entry.options if option.startswith("a file, "))).run()
    next(button for button in page.button if button.label == "Remove").click().run()
    assert not partial.exists()
    assert "1 model, " in texts(page)


def test_a_loaded_folder_can_be_looked_at(console: Console, open_page: OpenPage) -> None:
    load(console, "m")
    page = open_page("weights")
    assert page.selectbox(key="trust-folder").value == str(console.settings.home / "fake-model")
    assert "not signed" in texts(page).lower() or "signature" in texts(page).lower()


@pytest.mark.model
def test_the_cache_is_verified_and_a_damaged_model_removed(console: Console, open_page: OpenPage) -> None:
    fill(console)
    page = open_page("weights")
    page.button(key="cache-verify").click().run()
    console.cache_jobs.wait(30)
    assert "The cache is as it was fetched: 1 model" in page.run().success[0].value
    (entry,) = console.weights.cache.entries()
    (entry.path / "config.json").write_text("[]")
    page.button(key="cache-verify").click().run()
    console.cache_jobs.wait(30)
    page.run()
    assert "1 damaged file" in page.error[0].value
    assert "**config.json** of SmolLM2-135M-Instruct" in texts(page)
    page.button(key="cache-mend-0").click().run()
    console.cache_jobs.wait(30)
    assert console.weights.cache.entries() == ()
    assert not page.run().error


@pytest.mark.model
def test_a_list_read_before_work_ended_is_read_again(
    console: Console, open_page: OpenPage, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(console)
    (entry,) = console.weights.cache.entries()
    (entry.path / "config.json").write_text("[]")
    console.cache_jobs.verify()
    console.cache_jobs.wait(30)
    page = open_page("weights")
    is_listed = threading.Event()

    def discard_later(*args: Any) -> None:
        assert is_listed.wait(30)
        discard(*args)

    def list_then_end(cache: WeightsCache) -> tuple[CacheEntry, ...]:
        entries = list_entries(cache)
        if threading.current_thread().name != "cache-job" and not is_listed.is_set():
            is_listed.set()
            console.cache_jobs.wait(30)
        return entries

    list_entries = WeightsCache.entries
    monkeypatch.setattr("engine.weights.cache_jobs.discard", discard_later)
    monkeypatch.setattr(WeightsCache, "entries", list_then_end)
    page.button(key="cache-mend-0").click().run()
    assert is_listed.is_set()
    assert "The weights cache is empty" in page.info[0].value
    assert not page.button(key="cache-verify").disabled


def test_a_verification_is_followed_and_cancelled(
    console: Console, open_page: OpenPage, monkeypatch: pytest.MonkeyPatch
) -> None:
    going = threading.Event()

    def read_slowly(_cache: object, on_progress: Callable[[str, float], None]) -> tuple[()]:
        on_progress("verifying", 0.5)
        going.wait(30)
        on_progress("verifying", 0.75)
        return ()

    monkeypatch.setattr("engine.weights.cache_jobs.verify", read_slowly)
    page = open_page("weights")
    page.button(key="cache-verify").click().run()
    wait_until(lambda: (progress := console.cache_jobs.progress()) is not None and progress.fraction == 0.5)
    assert page.run().get("progress")[0].proto.text == "verifying 50%"
    assert page.button(key="cache-verify").disabled
    page.button(key="cache-cancel").click().run()
    going.set()
    console.cache_jobs.wait(30)
    assert "It was cancelled." in texts(page.run())


def test_mending_that_fails_is_one_message(console: Console, open_page: OpenPage) -> None:
    damage = Damage("acme/tiny", console.settings.home / "nowhere", "config.json", "its content changed")
    console.cache_jobs.mend(Damaged(damage, "tiny", can_fetch=True))
    console.cache_jobs.wait(30)
    page = open_page("weights")
    assert "is not in the weights cache" in page.error[0].value


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A hub that the console asks."""
    monkeypatch.delenv("HF_HUB_OFFLINE")
    with serve_hub() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.endpoint)
        yield server


def pull(page: AppTest, source: str) -> AppTest:
    page.text_input(key="pull-source").set_value(source)
    return page.button(key="pull-submit").click().run()


def link(page: AppTest, label: str) -> tuple[str, str]:
    """The page and the query that a link leads to."""
    proto = next(element.proto for element in page.get("page_link") if element.proto.label == label)
    return proto.page, proto.query_string


def test_a_model_of_the_hub_is_pulled_planned_and_can_be_loaded(
    console: Console, open_page: OpenPage, hub: HubServer, tiny_folder: Path
) -> None:
    commit = hub.publish(REPO, {file.name: file.read_bytes() for file in tiny_folder.iterdir()})
    page = open_page("weights")
    page.text_input(key="pull-source").set_value(REPO)
    page.button(key="pull-plan").click().run()
    assert f":material/download: Not here yet: pulling {REPO}@main downloads " in plain_text(page.caption[0])
    assert page.markdown[0].value.startswith("##### :green[:material/check_circle: tiny fits on")
    assert not page.get("progress")
    pull(page, REPO)
    console.pulls.wait(30)
    page.run()
    assert not page.error
    assert plain_text(page.success[0]).startswith(f"**{REPO}** is here: ")
    assert page.success[0].value.endswith(f"revision {commit[:12]}.")
    assert "tiny fits on" in texts(page)
    assert list(page.dataframe[0].value["Name"]) == [REPO]
    assert link(page, "Load it") == ("models", "load=acme%2Ftiny")
    page.button(key="pull-plan").click().run()
    assert page.markdown[0].value.startswith("##### :green[:material/check_circle: tiny fits on")
    assert open_page("models", load=REPO).text_input(key="load-source").value == REPO


def test_a_pull_is_followed_cancelled_and_goes_on(console: Console, open_page: OpenPage, hub: HubServer) -> None:
    hub.publish(REPO, model_files(num_bytes=400_000))
    hub.fail("model-00001-of-00002.safetensors", *[Fault(bytes_per_s=20_000)])
    page = pull(open_page("weights"), REPO)
    wait_until(lambda: (progress := console.pulls.progress()) is not None and "kB/s" in progress.stage)
    shown = page.run().get("progress")[0].proto.text
    assert re.match(rf"{REPO}\\: downloading \d+ of 80\d kB, .*kB/s, \d+ s left", shown), shown
    assert page.button(key="pull-submit").disabled
    again = open_page("weights")
    assert again.get("progress")[0].proto.text.startswith(REPO)
    again.button(key="pull-cancel").click().run()
    console.pulls.wait(30)
    page.run()
    assert f"The pull of {REPO} was cancelled. What has arrived is kept" in texts(page)
    assert not page.error
    pull(page, REPO)
    console.pulls.wait(30)
    assert page.run().success[0].value.startswith(f"**{REPO}** is here")
    resumed = [seen.headers.get("Range") for seen in hub.requests("model-00001-of-00002.safetensors")]
    assert resumed[-1] is not None


def test_reading_headers_is_told_and_can_be_cancelled(
    open_page: OpenPage, hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.publish(REPO, model_files())
    monkeypatch.setattr("engine.models.planner.Planner.plan", _plan_without_end)
    page = open_page("weights")
    page.text_input(key="pull-source").set_value(REPO)
    page.button(key="pull-plan").click().run()
    assert page.get("progress")[0].proto.text == "reading 3 of 30 headers"
    page.button(key="pull-plan-cancel").click().run()
    assert not page.get("progress")
    assert not page.error


def _plan_without_end(_planner: Planner, _spec: ModelSpec, on_progress: Callable[[str, float], None]) -> None:
    """Is under way when the page is drawn again."""
    on_progress("reading 3 of 30 headers", 0.1)
    st.stop()


def test_the_last_pull_is_planned_once_a_session(
    console: Console, open_page: OpenPage, hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.publish(REPO, model_files())
    planned: list[str] = []

    def refuse(_planner: Planner, spec: ModelSpec) -> None:
        planned.append(spec.source)
        raise WeightsError("its config is empty")

    monkeypatch.setattr("engine.models.planner.Planner.plan", refuse)
    page = pull(open_page("weights"), REPO)
    console.pulls.wait(30)
    for _ in range(3):
        assert plain("cannot be told: its config is empty") in texts(page.run())
    assert planned == [REPO]
    pull(page, REPO)
    console.pulls.wait(30)
    page.run()
    assert planned == [REPO, REPO]


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("", "Model is empty: give a hub id"),
        ("/nowhere", "give the path of a model folder"),
        ("acme/tiny", "HF_HUB_OFFLINE=1: unset it"),
    ],
)
def test_what_cannot_be_pulled_is_one_sentence(console: Console, open_page: OpenPage, source: str, words: str) -> None:
    page = pull(open_page("weights"), source)
    console.pulls.wait(30)
    if source == "acme/tiny":
        page.run()
    (error,) = page.error
    assert words in plain_text(error)
    assert not page.success


def test_an_unknown_id_and_a_full_cache_say_so(
    console: Console, open_page: OpenPage, hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = pull(open_page("weights"), "acme/nobody")
    console.pulls.wait(30)
    assert "has no such model: acme/nobody@main (404); check the spelling" in plain_text(page.run().error[0])
    hub.publish(REPO, model_files(num_bytes=400_000))
    monkeypatch.setattr(console.weights.cache, "max_bytes", 100_000)
    pull(page, REPO)
    console.pulls.wait(30)
    assert "CONSOLE_WEIGHTS_MAX_GIB" in plain_text(page.run().error[0])


def plain_text(element: Any) -> str:
    """What Markdown shows of it."""
    return str(element.value).replace("\\", "")
