"""From the command to a served page and to a ready model, first on an empty home, then again."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from tests.bench.results import Figure

_TIMEOUT_S = 240.0


def measure(home: Path) -> Iterator[Figure]:
    """Cold unpacks the sample's weights, warm finds them in the cache."""
    for temperature in ("cold", "warm"):
        listening_s, ready_s = _start_once(home)
        yield Figure(f"start.listening.{temperature}_s", listening_s, "s")
        yield Figure(f"start.ready.{temperature}_s", ready_s, "s")


def _start_once(home: Path) -> tuple[float, float]:
    """Seconds from the start of the process to the first answer over HTTP, and to readiness."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = os.environ | {"CONSOLE_HOME": str(home), "CONSOLE_PORT": str(port), "CONSOLE_LOG_LEVEL": "error"}
    began = time.perf_counter()
    server = subprocess.Popen(
        [sys.executable, "-m", "dashboard"], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        listening_s = _until(f"http://127.0.0.1:{port}/healthz", began, server)
        return listening_s, _until(f"http://127.0.0.1:{port}/readyz", began, server)
    finally:
        server.terminate()
        server.wait(30)


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
