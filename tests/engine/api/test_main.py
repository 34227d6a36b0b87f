from __future__ import annotations

import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx

from tests.fakes import wait_until

_COMMAND = [sys.executable, "-m", "engine.api", "--model", "none"]
_ROOT = Path(__file__).parents[3]


def _is_alive(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/healthz", timeout=5).status_code == 200
    except httpx.TransportError:
        return False


def test_a_port_in_use_is_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        command = [*_COMMAND, "--home", str(tmp_path), "--port", str(port)]
        ended = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 2
    assert ended.stderr.startswith(f"error: 127.0.0.1:{port} is in use")
    assert len(ended.stderr.splitlines()) == 1


def test_it_serves_until_it_is_told_to_stop(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = [*_COMMAND, "--home", str(tmp_path), "--port", str(port)]
    with subprocess.Popen(command, cwd=_ROOT, stderr=subprocess.PIPE, text=True) as process:
        try:
            wait_until(lambda: process.poll() is not None or _is_alive(port), 60)
            assert httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=5).status_code == 503
            process.send_signal(signal.SIGTERM)
            _, errors = process.communicate(timeout=30)
        finally:
            process.kill()
    assert "Traceback" not in errors
    assert process.returncode in (0, -signal.SIGTERM)


def test_a_home_that_cannot_be_used_ends_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = [*_COMMAND, "--home", str(tmp_path / "file" / "home"), "--port", str(port)]
    ended = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode != 0
    assert "cannot be created" in ended.stderr
