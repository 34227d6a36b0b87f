"""What pages that are looked at cost those who wait for tokens: gaps between tokens with ten browser tabs open on the
console, and with none, in turn, on one server.

The browser runs on the same processors, at the lowest priority: it stands for ten machines that look on.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from engine.latency import percentile
from tests.bench.chat_load import ChatLoad, run_chats
from tests.bench.results import Figure
from tests.bench.servers import find_port, started
from tests.conftest import CHROMIUM, CHROMIUM_ARGUMENTS

# Those that poll, twice.
_PAGES = ("", "serving", "models", "telemetry", "latency") * 2
_NUM_PAIRS = 3
_NUM_CLIENTS, _NUM_REQUESTS, _NUM_TOKENS = 4, 3, 96
_SETTLE_MS = 5_000
# A tab that nobody sees would poll less.
_AWAKE = (
    "--disable-background-timer-throttling",
    "--disable-backgrounding-occluded-windows",
    "--disable-renderer-backgrounding",
)


def measure(home: Path) -> Iterator[Figure]:
    """P50 and P99 of the gaps, each without and with tabs, and the ratio of the P99 (without over with)."""
    port = find_port()
    settings = {"CONSOLE_HOME": str(home), "CONSOLE_PORT": str(port), "CONSOLE_LOG_LEVEL": "warning"}
    with started([sys.executable, "-m", "dashboard"], port, "/readyz", settings):
        _gaps(port, "warm")
        pairs = [_measure_pair(home, port, number) for number in range(_NUM_PAIRS)]
    for name, fraction in (("p50", 0.5), ("p99", 0.99)):
        without, with_tabs = zip(*((_at(fraction, one), _at(fraction, other)) for one, other in pairs), strict=True)
        ratio = statistics.median(one / other for one, other in zip(without, with_tabs, strict=True))
        values = statistics.median(with_tabs), statistics.median(without)
        yield Figure(f"engine.itl.tabs10_{name}_s", values[0], "s", "no tabs", values[1], round(ratio, 3))


def _measure_pair(home: Path, port: int, number: int) -> tuple[list[float], list[float]]:
    alone = _gaps(port, f"alone{number}")
    with _ten_tabs(home, port):
        return alone, _gaps(port, f"tabs{number}")


def _gaps(port: int, name: str) -> list[float]:
    load = ChatLoad(port, "SmolLM2-135M-Instruct", _NUM_CLIENTS, _NUM_REQUESTS, _NUM_TOKENS, name)
    return [gap_s for answer in run_chats(load).answers for gap_s in answer.gaps_s]


@contextmanager
def _ten_tabs(home: Path, port: int) -> Iterator[None]:
    from playwright.sync_api import sync_playwright

    quiet = home / "chromium"
    quiet.write_text(f'#!/bin/sh\nexec nice -n 19 {CHROMIUM} "$@"\n')
    quiet.chmod(0o755)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(quiet), args=[*CHROMIUM_ARGUMENTS, *_AWAKE])
        for name in _PAGES:
            page = browser.new_page()
            page.goto(f"http://127.0.0.1:{port}/{name}", timeout=120_000)
            page.get_by_role("heading").first.wait_for(timeout=120_000)
        page.wait_for_timeout(_SETTLE_MS)
        yield
        browser.close()


def _at(fraction: float, values: list[float]) -> float:
    found = percentile(values, fraction)
    assert found is not None
    return found
