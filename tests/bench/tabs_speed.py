"""What pages that are looked at cost those who wait for tokens: gaps between tokens with ten browser tabs open on the
console, and with none, in turn, on one server.

The tabs are sessions without a browser (open_tabs.py): what shows a page runs on the machine of whoever looks at it.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from engine.latency import percentile
from tests.bench.chat_load import ChatLoad, run_chats
from tests.bench.results import Figure, compare
from tests.bench.servers import find_port, started

# Those that poll, twice.
_PAGES = ("", "serving", "models", "telemetry", "latency") * 2
_NUM_PAIRS = 3
_NUM_CLIENTS, _NUM_REQUESTS, _NUM_TOKENS = 4, 3, 96


def measure(home: Path) -> Iterator[Figure]:
    """P50 and P99 of the gaps, each without and with tabs, and the ratio of the P99 (without over with)."""
    port = find_port()
    settings = {"CONSOLE_HOME": str(home), "CONSOLE_PORT": str(port), "CONSOLE_LOG_LEVEL": "warning"}
    with started([sys.executable, "-m", "dashboard"], port, "/readyz", settings):
        _gaps(port, "warm")
        pairs = [_measure_pair(port, number) for number in range(_NUM_PAIRS)]
    for name, fraction in (("p50", 0.5), ("p99", 0.99)):
        without, with_tabs = zip(*((_at(fraction, one), _at(fraction, other)) for one, other, _ in pairs), strict=True)
        yield compare(f"engine.itl.tabs10_{name}_s", "s", with_tabs, "no tabs", without, more=False)
    yield Figure("pages.tabs10.runs_per_s", statistics.median(runs for *_, runs in pairs), "1/s")


def _measure_pair(port: int, number: int) -> tuple[list[float], list[float], float]:
    """Gaps without and with tabs, and how many pages and fragments were run a second meanwhile."""
    alone = _gaps(port, f"alone{number}")
    command = [sys.executable, "-m", "tests.bench.open_tabs", str(port), *_PAGES]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as tabs:
        assert tabs.stdout is not None
        if tabs.stdout.readline().strip() != "open":
            raise RuntimeError("the tabs did not open")
        began_s = time.perf_counter()
        gaps_s = _gaps(port, f"tabs{number}")
        num_runs = int(tabs.communicate(timeout=60)[0])
    return alone, gaps_s, num_runs / (time.perf_counter() - began_s)


def _gaps(port: int, name: str) -> list[float]:
    load = ChatLoad(port, "SmolLM2-135M-Instruct", _NUM_CLIENTS, _NUM_REQUESTS, _NUM_TOKENS, name)
    return [gap_s for answer in run_chats(load).answers for gap_s in answer.gaps_s]


def _at(fraction: float, values: list[float]) -> float:
    found = percentile(values, fraction)
    assert found is not None
    return found
