"""The weights page over a real cache."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine import Console
from engine.weights.acquire import acquire
from engine.weights.cache import WeightsCache
from engine.weights.cache_jobs import Damaged
from engine.weights.hub import Hub
from engine.weights.inventory import CacheEntry
from engine.weights.upkeep import Damage, discard
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
    assert list(page.dataframe[0].value["Model"]) == ["SmolLM2-135M-Instruct.Q4_1"]
    assert "1 model" in texts(page)
    entry = page.selectbox(key="remove-entry")
    entry.set_value(entry.options[0]).run()
    next(button for button in page.button if button.label == "Remove").click().run()
    assert console.weights.cache.entries() == ()
    assert "The weights cache is empty" in page.info[0].value


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
