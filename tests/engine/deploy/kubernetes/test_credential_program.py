"""A program that is ended at its limit."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from engine.deploy.kubernetes.credential_program import limit_program


def run(plugin: dict[str, Any], limit_s: float = 10.0) -> subprocess.CompletedProcess[str]:
    """What becomes of the program that a kubeconfig names."""
    limit_program(plugin, limit_s)
    command = [plugin["command"], *plugin["args"]]
    return subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)


@pytest.mark.parametrize(("command", "status"), [("echo here; echo there >&2; exit 3", 3), ("kill -9 $$", 137)])
def test_output_and_status_are_the_programs(command: str, status: int) -> None:
    done = run({"command": "sh", "args": ["-c", command]})
    assert done.returncode == status
    assert (done.stdout, done.stderr) == (("here\n", "there\n") if status == 3 else ("", ""))


def test_a_program_without_arguments() -> None:
    plugin: dict[str, Any] = {"command": "true", "env": [{"name": "A", "value": "b"}]}
    assert run(plugin).returncode == 0
    assert plugin["env"] == [{"name": "A", "value": "b"}]
    assert plugin["command"] == sys.executable


def test_at_the_limit_it_ends_with_its_children(tmp_path: Path) -> None:
    began_s = time.monotonic()
    done = run({"command": "sh", "args": ["-c", f"sleep 30 & echo $! > {tmp_path}/child; wait"]}, 0.3)
    assert time.monotonic() - began_s < 20  # its output ends only once the child, which shares it, has ended
    assert (done.returncode, done.stderr) == (124, "no answer within 0.3 s\n")
