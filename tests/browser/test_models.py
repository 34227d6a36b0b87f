"""The models page as an operator meets it: plan, load, compare, swap, unload."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.browser.conftest import Server

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

pytestmark = [pytest.mark.browser, pytest.mark.model, pytest.mark.slow, pytest.mark.timeout(400)]

_NAME = "spare"
_PATIENCE_MS = 60_000  # a console that loads on two shared cores


def _card(page: Page, version: int) -> Locator:
    return page.locator(f".st-key-instance-{_NAME}-{version}")


def _choose(page: Page, within: Locator | Page, label: str, option: str) -> None:
    within.get_by_role("combobox", name=re.compile(label)).click()
    page.get_by_role("option", name=option, exact=True).click()


def _row(card: Locator, what: str) -> Locator:
    return card.get_by_role("row").filter(has=card.page.get_by_role("cell", name=what, exact=True))


def test_a_model_from_its_plan_to_its_end(page: Page, server: Server, tiny_folder: Path) -> None:
    from playwright.sync_api import expect

    expect.set_options(timeout=_PATIENCE_MS)
    page.goto(f"{server.url}/models")
    page.get_by_role("textbox", name="Name", exact=True).fill(_NAME)
    source = page.get_by_role("textbox", name="Source", exact=True)
    source.fill(str(tiny_folder))
    source.press("Enter")
    page.get_by_role("button", name="Does it fit?").click()
    expect(page.get_by_role("heading", name=re.compile(r"fits on the CPU: \d+\.\d+ GB needed"))).to_be_visible()
    expect(page.get_by_text("parameters as float32, 1 request of 2,048 tokens")).to_be_visible()

    page.get_by_role("button", name="Load model").click()
    first = _card(page, 1)
    expect(first.get_by_text("Memory, planned and measured")).to_be_visible()
    expect(first.get_by_text(re.compile(r"ready$"))).to_be_visible()
    expect(_row(first, "weights")).to_contain_text(re.compile(r"kB.*kB.*[+-]\d\.\d%"))
    expect(_row(first, "the process")).to_contain_text(re.compile(r"MB"))
    expect(first.get_by_text("Weights: as planned.")).to_be_visible()

    first.get_by_role("button", name="Swap").click()
    dialog = page.get_by_role("dialog")
    _choose(page, dialog, "Weights as", "bfloat16")
    dialog.get_by_role("button", name="Swap").click()
    second = _card(page, 2)
    expect(second.get_by_text("Memory, planned and measured")).to_be_visible()
    expect(first).to_have_count(0)
    expect(second.get_by_text(re.compile(r"^version 2$"))).to_be_visible()
    expect(second.get_by_text(re.compile("kB as bfloat16"))).to_be_visible()

    second.get_by_role("button", name="Unload").click()
    page.get_by_role("dialog").get_by_role("button", name="Unload").click()
    expect(second).to_have_count(0)
    expect(page.get_by_test_id("stException")).to_have_count(0)
