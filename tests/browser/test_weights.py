"""The weights page as an operator meets it: a cache of one unpacked model, verified, damaged, mended."""

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
