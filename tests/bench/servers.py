"""Servers under measurement, as processes of their own on loopback."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

_START_S = 240.0
_END_S = 30.0


def find_port() -> int:
    """A port of loopback that nothing listens on."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


@dataclass(frozen=True, slots=True)
class Running:
    """A server that answers."""

    port: int
    pid: int


@contextmanager
def started(
    command: Sequence[str], port: int, ready_path: str, variables: Mapping[str, str] | None = None
) -> Iterator[Running]:
    """The server, once `ready_path` at `port` answers 200; the process is ended, and waited for, on the way out.

    Raises:
        RuntimeError: it ended, or was not ready within four minutes.
    """
    process = subprocess.Popen(command, env=os.environ | dict(variables or {}))
    try:
        _await_ready(f"http://127.0.0.1:{port}{ready_path}", process)
        yield Running(port, process.pid)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _await_ready(url: str, process: subprocess.Popen[bytes]) -> None:
    until_s = time.monotonic() + _START_S
    while time.monotonic() < until_s and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise RuntimeError(f"the server was not ready within {_START_S:g} s (exit status {process.poll()})")
