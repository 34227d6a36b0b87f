"""Pictures in the playground: attached, answered by a model that takes them, kept, refused when broken."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.browser.conftest import Server, serve_console
from tests.vision_models import picture_bytes, save_tiny_llava

if TYPE_CHECKING:
    from playwright.sync_api import Page

playwright = pytest.importorskip("playwright.sync_api")
expect = playwright.expect

pytestmark = [pytest.mark.browser, pytest.mark.slow]

MEASURED = re.compile(r"tokens in, \d+ out · queue .* TTFT")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A console with a tiny model of random weights, which takes pictures."""
    model = save_tiny_llava(tmp_path_factory.mktemp("models") / "tiny-llava")
    with serve_console(tmp_path_factory.mktemp("pictures-home"), CONSOLE_MODEL=str(model)) as found:
        yield found


def send(page: Page, text: str, *files: tuple[str, bytes]) -> None:
    """Attach files by name and bytes, and send them with a text."""
    box = page.get_by_placeholder("Ask something, with pictures if you like")
    expect(box).to_be_enabled(timeout=30_000)
    attached = [{"name": name, "mimeType": "image/png", "buffer": data} for name, data in files]
    page.get_by_test_id("stChatInput").locator("input[type=file]").set_input_files(attached)
    for name, _ in files:
        page.get_by_test_id("stChatInput").get_by_text(name).wait_for()
    box.fill(text)
    box.press("Enter")


def test_a_picture_is_asked_about_kept_and_shown_as_code(page: Page, server: Server, tmp_path: Path) -> None:
    page.goto(f"{server.url}/playground")
    send(page, "What is this?", ("screen.png", picture_bytes(1)), ("other.png", picture_bytes(2)))
    expect(page.get_by_text(MEASURED)).to_be_visible(timeout=60_000)
    page.reload()
    expect(page.get_by_text(MEASURED)).to_be_visible(timeout=60_000)
    expect(page.get_by_test_id("stChatMessage").first.get_by_test_id("stImage").locator("img")).to_have_count(2)
    page.get_by_role("button", name="Code").click()
    expect(page.get_by_text("$(base64 < screen.png | tr -d")).to_be_visible()
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Export").click()
    with page.expect_download() as download:
        page.get_by_role("button", name="JSON").click()
    download.value.save_as(tmp_path / "talk.json")
    kept = json.loads((tmp_path / "talk.json").read_text())
    assert [image["name"] for image in kept["turns"][0]["images"]] == ["screen.png", "other.png"]
    assert len(kept["images"]) == 2
    page.keyboard.press("Escape")
    page.get_by_role("button", name="edit icon").click()
    page.get_by_role("textbox", name="Prompt").fill("And this?")
    page.get_by_role("button", name="Send", exact=True).click()
    expect(page.get_by_test_id("stChatMessage").first.get_by_text("And this?")).to_be_visible(timeout=60_000)
    expect(page.get_by_text(MEASURED)).to_be_visible(timeout=60_000)
    expect(page.get_by_test_id("stChatMessage").first.get_by_test_id("stImage").locator("img")).to_have_count(2)


def test_a_broken_picture_keeps_the_prompt_from_being_sent(page: Page, server: Server) -> None:
    page.goto(f"{server.url}/playground")
    send(page, "What is this?", ("cut.png", picture_bytes(1)[:-200]))
    expect(page.get_by_text(re.compile(r"Nothing was sent\. cut\.png "))).to_be_visible()
    expect(page.get_by_test_id("stCode").get_by_text("What is this?")).to_be_visible()
    expect(page.get_by_test_id("stChatMessage")).to_have_count(0)
