"""The environment page in a real browser, over the real checks of this machine."""

from __future__ import annotations

import contextlib
import json
import re
import urllib.request
from typing import TYPE_CHECKING

import pytest

from tests.browser.conftest import Server

if TYPE_CHECKING:
    from playwright.sync_api import Page

playwright = pytest.importorskip("playwright.sync_api")
PlaywrightTimeoutError = playwright.TimeoutError

pytestmark = [pytest.mark.browser, pytest.mark.model, pytest.mark.slow]

VERDICT = re.compile(r"This machine is fit|Fit, with warnings|Not fit|Undecided")
RUN_TIMEOUT_MS = 60_000


def test_a_run_is_followed_to_its_verdict_and_kept(page: Page, server: Server) -> None:
    page.goto(f"{server.url}/environment?profile=autoglm-9b")
    page.get_by_role("heading", name=VERDICT).wait_for(timeout=RUN_TIMEOUT_MS)
    page.get_by_role("button", name="Run the checks").click()
    page.get_by_text(re.compile(r"\d+ of \d+ checks, running")).wait_for()
    page.get_by_role("button", name="Cancel").wait_for(state="detached", timeout=RUN_TIMEOUT_MS)
    page.get_by_text("against the profile autoglm-9b").wait_for()
    with urllib.request.urlopen(f"{server.url}/v1/environment", timeout=10) as answer:
        report = json.load(answer)
    assert report["profile"] == "autoglm-9b"
    assert len(report["checks"]) > 40


def test_a_cancelled_run_leaves_the_report_before(page: Page, server: Server) -> None:
    page.goto(f"{server.url}/environment")
    page.get_by_role("heading", name=VERDICT).wait_for(timeout=RUN_TIMEOUT_MS)
    assert any(_is_cancelled(page) for _ in range(5)), "every run had ended before it could be cancelled"
    page.get_by_role("button", name="Cancel").wait_for(state="detached")
    page.get_by_role("heading", name=VERDICT).wait_for()


def _is_cancelled(page: Page) -> bool:
    """Start a run and cancel it; False where it was faster than the click."""
    page.get_by_role("button", name="Run the checks").click()
    with contextlib.suppress(PlaywrightTimeoutError):
        page.get_by_role("button", name="Cancel").click(timeout=5_000)
        page.get_by_text("The run was cancelled").wait_for(timeout=5_000)
        return True
    return False


def test_the_filter_is_in_the_url_and_a_link_opens_it(page: Page, server: Server) -> None:
    page.goto(f"{server.url}/environment")
    page.get_by_role("heading", name=VERDICT).wait_for(timeout=RUN_TIMEOUT_MS)
    page.get_by_role("button", name="skip", exact=True).click()
    page.wait_for_url("**/environment?status=skip")
    page.goto(page.url)
    page.get_by_text("No Kubernetes context is configured here", exact=False).or_(
        page.get_by_text("No NVIDIA driver library", exact=False)
    ).first.wait_for()
    # A filtered family is open, and names its checks in bold; the report to take along has all of them as code.
    playwright.expect(page.locator("strong", has_text="Python version")).to_have_count(0)
