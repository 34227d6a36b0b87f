"""From the command to the first answer and to a ready model, on an empty home and again; then how soon a browser
that opens as the server starts has drawn the first page, while the model loads behind it."""

from __future__ import annotations

import os
import socket
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.bench.results import Figure
from tests.conftest import CHROMIUM, CHROMIUM_ARGUMENTS

_TIMEOUT_S = 240.0
_NUM_DRAWN = 5


def measure(home: Path) -> Iterator[Figure]:
    """Cold unpacks the sample's weights, warm finds them in the cache."""
    for temperature in ("cold", "warm"):
        listening_s, ready_s = _start_once(home)
        yield Figure(f"start.listening.{temperature}_s", listening_s, "s")
        yield Figure(f"start.ready.{temperature}_s", ready_s, "s")
    if CHROMIUM.exists():
        drawn = [_draw_first_page(home) for _ in range(_NUM_DRAWN)]
        yield Figure("start.first_page_s", statistics.median(drawn), "s")


def _start_once(home: Path) -> tuple[float, float]:
    """Seconds from the start of the process to the first answer over HTTP, and to readiness."""
    with _server(home) as (url, process):
        began = time.perf_counter()
        listening_s = _until(f"{url}/healthz", began, process)
        return listening_s, _until(f"{url}/readyz", began, process)


def _draw_first_page(home: Path) -> float:
    """Seconds from the server's first answer to the heading of the overview in a real browser."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=CHROMIUM_ARGUMENTS)
        page = browser.new_page()
        with _server(home) as (url, process):
            _until(f"{url}/healthz", time.perf_counter(), process)
            began = time.perf_counter()
            page.goto(url)
            page.get_by_role("heading", level=1).wait_for()
            drawn_s = time.perf_counter() - began
        browser.close()
    return drawn_s


@contextmanager
def _server(home: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """`python -m dashboard` on a free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = os.environ | {"CONSOLE_HOME": str(home), "CONSOLE_PORT": str(port), "CONSOLE_LOG_LEVEL": "error"}
    process = subprocess.Popen(
        [sys.executable, "-m", "dashboard"], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield f"http://127.0.0.1:{port}", process
    finally:
        process.terminate()
        process.wait(30)


def _until(url: str, began: float, server: subprocess.Popen[bytes]) -> float:
    while time.perf_counter() - began < _TIMEOUT_S:
        if server.poll() is not None:
            raise RuntimeError(f"the server ended with code {server.returncode}")
        try:
            with urllib.request.urlopen(url, timeout=5):
                return time.perf_counter() - began
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.02)
    raise TimeoutError(f"{url} did not answer within {_TIMEOUT_S:g} s")
