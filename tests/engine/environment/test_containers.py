from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingUnixStreamServer
from typing import Any

import pytest
from docker.errors import DockerException

from engine.environment.check import CheckStatus, run_checks
from engine.environment.containers import (
    ContainerEngine,
    container_checks,
    judge_engine,
    read_container_engine,
)

DOCKER = {"Version": "28.5.1", "ApiVersion": "1.51", "Components": [{"Name": "Engine"}]}
PODMAN = {"Version": "5.6.0", "ApiVersion": "1.41", "Components": [{"Name": "Podman Engine"}]}


class EngineHandler(BaseHTTPRequestHandler):
    """Answers GET /version and GET /v1.51/version as an engine does."""

    def do_GET(self) -> None:
        body = json.dumps(DOCKER).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def address_string(self) -> str:
        return "unix"

    def log_message(self, format: str, *arguments: Any) -> None:
        """Keep quiet."""


class FakeClient:
    """A docker client that answers or raises, and remembers that it was closed."""

    def __init__(self, answer: dict[str, Any] | Exception) -> None:
        self.answer = answer
        self.is_closed = False

    def version(self) -> dict[str, Any]:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def close(self) -> None:
        self.is_closed = True


@pytest.fixture
def engine_address(tmp_path: Path) -> Iterator[str]:
    path = tmp_path / "docker.sock"
    with ThreadingUnixStreamServer(str(path), EngineHandler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield f"unix://{path}"
        server.shutdown()
        thread.join()


def test_an_engine_behind_a_real_socket(engine_address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", engine_address)
    engine = read_container_engine()
    assert engine == ContainerEngine(engine_address, "Docker Engine", "28.5.1", "1.51")
    (result,) = run_checks(container_checks())
    assert result.status is CheckStatus.PASS
    assert result.observed == f"Docker Engine 28.5.1, API 1.51, at {engine_address}"


def test_podman_is_called_podman() -> None:
    client = FakeClient(PODMAN)
    engine = read_container_engine("tcp://engine:2375", lambda **options: client)
    assert engine.name == "Podman Engine"
    assert client.is_closed


def test_no_socket_is_a_skip(tmp_path: Path) -> None:
    address = f"unix://{tmp_path}/none.sock"
    engine = read_container_engine(address)
    assert engine.reason == f"No container engine runs here: {address} does not exist."
    finding = judge_engine(engine)
    assert (finding.status, finding.observed) == (CheckStatus.SKIP, engine.reason)


def test_a_socket_nobody_listens_at_is_a_skip(tmp_path: Path) -> None:
    path = tmp_path / "dead.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    engine = read_container_engine(f"unix://{path}")
    assert "Connection refused" in (engine.reason or "")
    assert judge_engine(engine).status is CheckStatus.SKIP


def test_a_socket_that_may_not_be_opened_warns_with_the_remedy() -> None:
    def refuse(**options: object) -> None:
        raise PermissionError(13, "Permission denied")

    engine = read_container_engine("tcp://engine:2375", refuse)
    assert engine.is_forbidden
    finding = judge_engine(engine)
    assert finding.status is CheckStatus.WARN
    assert "usermod -aG docker" in (finding.remedy or "")


def test_an_engine_that_fails_midway_is_a_reason_and_its_client_is_closed() -> None:
    client = FakeClient(DockerException("server error"))
    engine = read_container_engine("tcp://engine:2375", lambda **options: client)
    assert engine.reason == "No container engine answers at tcp://engine:2375: server error."
    assert client.is_closed


def test_the_address_and_a_timeout_reach_the_client() -> None:
    seen: dict[str, Any] = {}

    def connect(**options: Any) -> FakeClient:
        seen.update(options)
        return FakeClient(DOCKER)

    read_container_engine("tcp://engine:2375", connect)
    assert seen["environment"]["DOCKER_HOST"] == "tcp://engine:2375"
    assert 0 < seen["timeout"] < 10
