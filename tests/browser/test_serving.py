"""The serving page in a real browser: a remote instance is added, a route made over it, a request tried."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.browser.conftest import Server
from tests.conftest import SAMPLE_NAME
from tests.engine.remote.openai_server import openai_server

if TYPE_CHECKING:
    from playwright.sync_api import Page

playwright = pytest.importorskip("playwright.sync_api")

pytestmark = [pytest.mark.browser, pytest.mark.model, pytest.mark.slow]


def test_from_a_remote_instance_to_a_route_over_it(page: Page, server: Server) -> None:
    with openai_server() as remote:
        page.goto(f"{server.url}/serving")
        page.get_by_role("textbox", name="Name", exact=True).fill("far")
        page.get_by_role("textbox", name="Base URL").fill(remote.url)
        page.get_by_role("textbox", name="Model there").fill("there")
        page.get_by_role("button", name="Test", exact=True).click()
        page.get_by_text("It answered in").wait_for()
        page.get_by_role("button", name="Add", exact=True).click()
        page.get_by_text("is added; its state is in the list").wait_for()
        page.get_by_role("button", name="Remove").wait_for()

        page.get_by_role("button", name="New route").click()
        dialog = page.get_by_role("dialog")
        dialog.get_by_role("textbox", name="Name").fill("chat")
        dialog.get_by_role("textbox", name="Name").press("Enter")
        dialog.get_by_role("combobox", name="Targets").click()
        page.get_by_role("option", name=SAMPLE_NAME).click()
        page.get_by_role("option", name="far").click()
        page.keyboard.press("Escape")
        dialog.get_by_text("Divide by weight").click()
        dialog.get_by_text(f"Sum 2: {SAMPLE_NAME} 50 %, far 50 %").wait_for()
        dialog.get_by_role("button", name="Save").click()
        dialog.wait_for(state="detached")
        page.get_by_role("button", name="Edit").wait_for()

        page.reload()  # the form then begins with the first name, the route's
        page.get_by_role("button", name="Who would answer?").click()
        page.get_by_text("its turn by weight, 50% of the requests").wait_for()

        page.get_by_role("button", name="Remove").click()
        page.get_by_role("dialog").get_by_role("button", name="Remove").click()
        page.get_by_text("not here now: far").wait_for()
        page.get_by_role("button", name="Delete").click()
        page.get_by_role("dialog").get_by_role("button", name="Delete").click()
        page.get_by_text("There is no route").wait_for()
        playwright.expect(page.get_by_test_id("stException")).to_have_count(0)
