"""The weights page as an operator meets it: a model pulled from a hub; a cache verified, damaged, mended."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from engine.weights.acquire import acquire
from engine.weights.cache import WeightsCache
from engine.weights.hub import Hub
from tests.browser.conftest import Server, serve_console
from tests.engine.weights.hub_models import REPO
from tests.engine.weights.hub_server import Fault, HubServer, serve_hub

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = [pytest.mark.browser, pytest.mark.model, pytest.mark.slow, pytest.mark.timeout(400)]

_PATIENCE_MS = 60_000


def _convert(_file: Path, folder: Path, _on_progress: object) -> None:
    (folder / "config.json").write_text("{}")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """The sample's file, as if it had been unpacked, in the cache of a home of its own."""
    acquired = acquire("sample", WeightsCache(tmp_path / "weights"), _convert, lambda *_: None, hub=Hub())
    acquired.lease.close()
    return acquired.folder


@pytest.fixture
def own_server(model: Path, tmp_path: Path) -> Iterator[Server]:
    """A console over that cache, without a model."""
    with serve_console(tmp_path, Server.is_listening, CONSOLE_MODEL="none") as found:
        yield found


def test_a_cache_is_verified_and_mended(page: Page, own_server: Server, model: Path) -> None:
    from playwright.sync_api import expect

    expect.set_options(timeout=_PATIENCE_MS)
    page.goto(f"{own_server.url}/weights")
    page.get_by_role("button", name="Verify the cache").click()
    expect(page.get_by_text(re.compile("The cache is as it was fetched: 1 model"))).to_be_visible()

    (model / "config.json").write_text("[]")
    page.get_by_role("button", name="Verify the cache").click()
    expect(page.get_by_text(re.compile("The cache has 1 damaged file"))).to_be_visible()
    expect(
        page.get_by_text(re.compile(r"config\.json of SmolLM2-135M-Instruct\S* [0-9a-f]{12}: its content changed"))
    ).to_be_visible()

    page.get_by_role("button", name="Remove the model").click()
    expect(page.get_by_text("The weights cache is empty")).to_be_visible()
    expect(page.get_by_text("damaged")).to_have_count(0)
    assert not model.exists()


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with serve_hub() as server:
        yield server


@pytest.fixture
def hub_server(hub: HubServer, tmp_path: Path) -> Iterator[Server]:
    """A console with an empty cache that asks that hub."""
    settings = {"CONSOLE_MODEL": "none", "HF_HUB_OFFLINE": "0", "HF_ENDPOINT": hub.endpoint}
    with serve_console(tmp_path, Server.is_listening, **settings) as found:
        yield found


def test_a_model_is_pulled_cancelled_pulled_on_and_loaded(
    page: Page, hub: HubServer, hub_server: Server, tiny_folder: Path
) -> None:
    from playwright.sync_api import expect

    expect.set_options(timeout=_PATIENCE_MS)
    hub.publish(REPO, {file.name: file.read_bytes() for file in tiny_folder.iterdir()})
    hub.fail("model.safetensors", Fault(bytes_per_s=4_000))
    page.goto(f"{hub_server.url}/weights")
    page.get_by_role("textbox", name="Model", exact=True).fill(REPO)
    pull = page.get_by_role("button", name="Pull", exact=True)
    pull.click()
    expect(page.get_by_text(re.compile(rf"{REPO}: downloading \d+ of \d+ kB, .*/s, .* left"))).to_be_visible()
    expect(pull).to_be_disabled()
    page.reload()
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_text(f"The pull of {REPO} was cancelled. What has arrived is kept")).to_be_visible()

    page.get_by_role("textbox", name="Model", exact=True).fill(REPO)
    pull.click()
    expect(page.get_by_text(re.compile(rf"{REPO} is here: .* revision [0-9a-f]{{12}}"))).to_be_visible()
    expect(page.get_by_text(re.compile("tiny fits on"))).to_be_visible()
    expect(page.get_by_text(re.compile("1 model, "))).to_be_visible()
    page.get_by_role("link", name="Load it").click()
    expect(page).to_have_url(re.compile("/models.*load=acme%2Ftiny"))
    expect(page.get_by_role("textbox", name="Source", exact=True)).to_have_value(REPO)
    page.get_by_role("button", name="Load model").click()
    expect(page.get_by_text(re.compile(r"ready$"))).to_be_visible(timeout=4 * _PATIENCE_MS)  # torch is imported first
    expect(page.get_by_test_id("stException")).to_have_count(0)
