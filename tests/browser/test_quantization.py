"""The quantization page in a real browser: an experiment on a tiny model to its end, a long one, cancelled, and a model
quantized and saved."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.browser.conftest import Server, serve_console
from tests.conftest import weights_cache_folder

if TYPE_CHECKING:
    from playwright.sync_api import Page

playwright = pytest.importorskip("playwright.sync_api")
expect = playwright.expect

pytestmark = [pytest.mark.browser, pytest.mark.model, pytest.mark.slow, pytest.mark.timeout(900)]

RUN_TIMEOUT_MS = 300_000
PROGRESS = re.compile(r"Variant \d of 3, ")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A console of these tests' own with no model in it: nothing disturbs what is measured."""
    home = tmp_path_factory.mktemp("lab-home")
    (home / "weights").symlink_to(weights_cache_folder(), target_is_directory=True)
    with serve_console(home, Server.is_listening, CONSOLE_MODEL="none", CONSOLE_THREADS="1") as found:
        yield found


def begin(page: Page, server: Server, source: str) -> None:
    """The original and the two variants that the page proposes, on one short prompt."""
    page.goto(f"{server.url}/quantization?tokens=512&repeats=1")
    model = page.get_by_role("combobox", name="Model", exact=True)
    model.fill(source)
    model.press("Enter")
    prompts = page.get_by_role("textbox", name="Prompts, one a line")
    prompts.fill("Hello")
    prompts.press("Control+Enter")
    page.get_by_role("button", name="Run the experiment").click()
    expect(page).to_have_url(re.compile(r"run=[0-9a-f]{32}"))


def test_an_experiment_to_its_end_and_one_of_it_is_loaded(page: Page, server: Server, tiny_folder: Path) -> None:
    begin(page, server, str(tiny_folder))
    expect(page.get_by_text(re.compile(r"tiny · .* · done · took"))).to_be_visible(timeout=RUN_TIMEOUT_MS)
    expect(page.get_by_text(PROGRESS)).to_have_count(0)
    choice = page.get_by_role("combobox", name=re.compile("Variant to load"))
    choice.press_sequentially("int8-weight")  # a list that a click opened closes when the charts arrive
    page.get_by_role("option", name="int8-weight", exact=True).click()
    page.get_by_role("button", name="Load this one").click()
    page.get_by_text("tiny-int8-weight is loading").wait_for()
    page.get_by_role("link", name="Follow it on the Models page").click()
    expect(page.get_by_text("int8-weight on cpu")).to_be_visible(timeout=RUN_TIMEOUT_MS)
    expect(page.get_by_text(re.compile(r"ready$"))).to_be_visible(timeout=RUN_TIMEOUT_MS)


def test_one_goes_on_over_a_reload_and_a_cancelled_one_is_kept(page: Page, server: Server) -> None:
    begin(page, server, "sample")  # takes half a minute at the least
    page.get_by_text(PROGRESS).wait_for()
    expect(page.get_by_role("button", name="Run the experiment")).to_be_disabled()
    page.reload()
    page.get_by_text(PROGRESS).wait_for()
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_text(re.compile(r"sample · .* · cancelled · took"))).to_be_visible(timeout=60_000)
    expect(page.get_by_role("button", name="Run the experiment")).to_be_enabled()
    expect(page.get_by_text(PROGRESS)).to_have_count(0)


def test_the_sample_is_quantized_saved_and_loaded(page: Page, server: Server) -> None:
    expect.set_options(timeout=60_000)
    page.goto(f"{server.url}/quantization")
    model = page.get_by_role("combobox", name="Model to save", exact=True)
    model.fill("sample")  # where a model is loaded, that one is proposed
    model.press("ArrowDown")
    model.press("Enter")
    folder = page.get_by_role("textbox", name="Folder", exact=True)
    expected = server.home / "quantized" / "SmolLM2-135M-Instruct-int8-weight"
    expect(folder).to_have_attribute("placeholder", str(expected))
    page.get_by_role("button", name="Quantize and save").click()
    expect(page.get_by_text(re.compile(r"sample into .*: (starting|loading|quantizing|saving)"))).to_be_visible()
    saved = re.compile(r"SmolLM2-135M-Instruct as int8-weight is saved: .* on disk, 5\d % of the 269.0 MB")
    expect(page.get_by_text(saved)).to_be_visible(timeout=RUN_TIMEOUT_MS)
    assert (expected / "model.safetensors").is_file()
    page.get_by_role("link", name="Load it").click()
    expect(page.get_by_role("textbox", name="Source", exact=True)).to_have_value(str(expected))
    page.get_by_role("button", name="Load model").click()
    card = page.locator(".st-key-instance-SmolLM2-135M-Instruct-int8-weight-1")
    expect(card.get_by_text("int8-weight on cpu")).to_be_visible(timeout=RUN_TIMEOUT_MS)
    expect(card.get_by_text(re.compile(r"ready$"))).to_be_visible(timeout=RUN_TIMEOUT_MS)
