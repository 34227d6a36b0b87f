"""Waiting for processes to end."""

from __future__ import annotations

import time
from pathlib import Path

import pytest


def wait_until_gone(pid: int) -> None:
    """A killed orphan is reaped by its new parent, in its own time; a zombie does nothing any more."""
    deadline_s = time.monotonic() + 5
    while time.monotonic() < deadline_s:
        status = Path(f"/proc/{pid}/stat")
        try:
            if status.read_text(encoding="utf-8").rsplit(")", 1)[1].split()[0] == "Z":
                return
        except (FileNotFoundError, ProcessLookupError):
            return
        time.sleep(0.05)
    pytest.fail(f"process {pid} outlives the probe")
