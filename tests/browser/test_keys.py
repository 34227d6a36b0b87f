"""API keys in a real browser: made, copied, used to sign in, and revoked. On a console of its own: its first admin key
shuts everybody else out."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.browser.conftest import ROOT
from tests.fakes import wait_until

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

playwright = pytest.importorskip("playwright.sync_api")
expect = playwright.expect

TIMEOUT_MS = 60_000

pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    """A console without a model and without keys."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "dashboard", "--model", "none", "--home", str(tmp_path), "--port", str(port)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ)
    found = f"http://127.0.0.1:{port}"
    try:
        wait_until(lambda: _status(f"{found}/healthz") == 200, 60)
        yield found
    finally:
        process.terminate()
        process.wait(30)


def _status(address: str, secret: str | None = None) -> int:
    headers = {} if secret is None else {"authorization": f"Bearer {secret}"}
    try:
        with urllib.request.urlopen(urllib.request.Request(address, headers=headers), timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return int(error.code)
    except OSError:
        return 0


def _create_admin_key(page: Page, url: str) -> str:
    """The secret as the copy button gives it."""
    page.goto(f"{url}/settings")
    page.get_by_text("Create a key").click()
    page.get_by_role("textbox", name="Name").fill("root")
    page.get_by_role("button", name="admin", exact=True).click()
    page.get_by_role("button", name="Create key").click()
    page.get_by_text("it is never shown again").wait_for()
    secret = page.get_by_test_id("stCode").locator("code")
    expect(secret).to_contain_text("agc_", timeout=TIMEOUT_MS)
    page.get_by_test_id("stCode").hover()
    page.get_by_role("button", name="Copy to clipboard").click()
    page.wait_for_function("async () => (await navigator.clipboard.readText()).startsWith('agc_')")
    copied = str(page.evaluate("() => navigator.clipboard.readText()"))
    expect(secret).to_have_text(copied, timeout=TIMEOUT_MS)
    return copied


def _sign_in(page: Page, url: str, secret: str) -> None:
    page.goto(f"{url}/settings")
    page.get_by_role("textbox", name="API key").fill(secret)
    page.get_by_role("button", name="Sign in").click()


def test_a_key_from_its_making_to_its_end(browser: Browser, url: str) -> None:
    context = browser.new_context(permissions=["clipboard-read", "clipboard-write"])
    context.set_default_timeout(TIMEOUT_MS)
    page = context.new_page()
    assert _status(f"{url}/admin/models") == 200
    secret = _create_admin_key(page, url)
    assert (_status(f"{url}/admin/models"), _status(f"{url}/admin/models", secret)) == (401, 200)
    page.get_by_role("button", name="I have copied it").click()
    expect(page.get_by_text("it is never shown again")).to_have_count(0, timeout=TIMEOUT_MS)

    other = context.new_page()
    _sign_in(other, url, "agc_stranger")
    other.get_by_text("this key is not known here").wait_for()
    _sign_in(other, url, secret)
    other.get_by_role("heading", name="API keys").wait_for()

    other.get_by_role("combobox", name="Key").click()
    other.get_by_role("option", name="root").click()
    other.get_by_role("button", name="Revoke").click()
    other.get_by_text("You came in with this key").wait_for()
    other.get_by_role("dialog").get_by_role("button", name="Revoke").click()
    expect(other.get_by_text("There is no key: whoever is on this machine")).to_be_visible(timeout=TIMEOUT_MS)
    assert _status(f"{url}/admin/models", "none is needed again") == 200
    context.close()
