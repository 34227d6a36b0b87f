"""A real server in its own process, a real Chromium, and the sample model behind them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.conftest import CHROMIUM, CHROMIUM_ARGUMENTS, weights_cache_folder
from tests.fakes import wait_until

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Server:
    """A running console. `listening_at` is the monotonic time of its first answer."""

    url: str
    home: Path
    listening_at: float

    def read(self, path: str) -> str:
        """The body of a GET."""
        with urllib.request.urlopen(self.url + path, timeout=10) as answer:
            return str(answer.read().decode())

    def is_ready(self) -> bool:
        """Whether a model is ready."""
        try:
            return '"ready":true' in self.read("/readyz")
        except OSError:
            return False

    def is_listening(self) -> bool:
        """Whether it answers, with or without a model."""
        try:
            return bool(self.read("/healthz"))
        except OSError:
            return False


@contextmanager
def serve_console(home: Path, is_up: Callable[[Server], bool] = Server.is_ready, **settings: str) -> Iterator[Server]:
    """`python -m dashboard` on a free port, with CONSOLE_* settings of one's own, for as long as the block lasts."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = home / "server.log"
    environment = os.environ | {"CONSOLE_HOME": str(home), "CONSOLE_PORT": str(port), **settings}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "dashboard"], cwd=ROOT, env=environment, stdout=output, stderr=output
        )
    found = Server(f"http://127.0.0.1:{port}", home, 0.0)
    try:
        wait_until(lambda: is_up(found), 120)
        yield Server(found.url, home, time.monotonic())
    finally:
        process.terminate()
        assert process.wait(30) in (0, -15), log.read_text()[-2000:]


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A console whose sample model is ready when the test begins."""
    home = tmp_path_factory.mktemp("browser-home")
    (home / "weights").symlink_to(weights_cache_folder(), target_is_directory=True)
    with serve_console(home) as found:
        yield found


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A headless Chromium. Not kept for the session: while playwright runs, no other test can run an event loop."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=str(CHROMIUM), args=CHROMIUM_ARGUMENTS)
        yield found
        found.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A fresh session in a wide window."""
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    context.set_default_timeout(60_000)
    yield context.new_page()
    context.close()
