"""Every page in a real browser: it draws, without an error, wide and narrow; and the latency page tells a P95."""

from __future__ import annotations

import json
import re
import time
import urllib.request
from typing import TYPE_CHECKING

import pytest

from tests.browser.conftest import Server

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = [pytest.mark.browser, pytest.mark.model, pytest.mark.slow]

PAGES = (
    "",
    "playground",
    "models",
    "weights",
    "quantization",
    "serving",
    "latency",
    "telemetry",
    "environment",
    "settings",
)


@pytest.mark.parametrize("width", [1440, 420])
@pytest.mark.parametrize("name", PAGES)
def test_page_draws_without_an_error(page: Page, server: Server, name: str, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 900})
    page.goto(f"{server.url}/{name}")  # the overview is at the root
    page.get_by_role("heading", level=1).wait_for()
    page.wait_for_function("() => !document.querySelector('[data-testid=stStatusWidget]')")
    assert page.get_by_test_id("stException").count() == 0
    overflow = page.evaluate("() => document.documentElement.scrollWidth - window.innerWidth")
    assert overflow <= 0


def test_latency_page_tells_a_p95(page: Page, server: Server) -> None:
    body = {"model": "SmolLM2-135M-Instruct", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4}
    request = urllib.request.Request(
        f"{server.url}/v1/chat/completions", json.dumps(body).encode(), {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=30):
        pass
    time.sleep(0.6)  # records are written in batches every half a second
    page.goto(f"{server.url}/latency")
    page.get_by_text("P95").first.wait_for()
    page.get_by_text(re.compile(r"\d+(\.\d+)? m?s")).first.wait_for()
