"""A container engine's API on a real Unix socket, with the answers that a test gives it."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingUnixStreamServer
from typing import Any

DOCKER_VERSION = {
    "Version": "28.5.1",
    "ApiVersion": "1.51",
    "Components": [
        {"Name": "Engine", "Version": "28.5.1"},
        {"Name": "containerd", "Version": "1.7.28"},
        {"Name": "runc", "Version": "1.3.3"},
    ],
}
PODMAN_VERSION = {
    "Version": "5.6.0",
    "ApiVersion": "1.41",
    "Components": [{"Name": "Podman Engine"}, {"Name": "OCI Runtime (crun)", "Version": "1.24"}],
}
DOCKER_INFO = {
    "Driver": "overlay2",
    "CgroupDriver": "systemd",
    "CgroupVersion": "2",
    "DockerRootDir": "/var/lib/docker",
    "MemTotal": 64 * 10**9,
    "NCPU": 16,
    "Runtimes": {"runc": {"path": "runc"}, "nvidia": {"path": "nvidia-container-runtime"}},
    "DefaultRuntime": "runc",
    "CDISpecDirs": ["/etc/cdi", "/var/run/cdi"],
    "DiscoveredDevices": [{"Source": "cdi", "ID": "nvidia.com/gpu=0"}],
    "Warnings": None,
    "LiveRestoreEnabled": False,
}


class EngineServer(ThreadingUnixStreamServer):
    """`answers` by "METHOD path" without the version; a (status, body) pair, `Slow`, or `HANG`.

    `seen` are the requests.
    """

    daemon_threads = True

    def __init__(self, path: Path, answers: dict[str, Any]) -> None:
        super().__init__(str(path), _Handler)
        self.address = f"unix://{path}"
        self.answers = answers
        self.seen: list[tuple[str, Any]] = []
        self.released = threading.Event()


HANG = object()


@dataclass(frozen=True)
class Slow:
    """An answer that comes after `delay_s`."""

    delay_s: float
    answer: Any


class _Handler(BaseHTTPRequestHandler):
    server: EngineServer

    def do_GET(self) -> None:
        size = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(size)) if size else None
        path = re.sub(r"^/v[\d.]+", "", self.path.split("?")[0])
        key = f"{self.command} {path}"
        self.server.seen.append((key, body))
        answer = self.server.answers.get(key, (404, {"message": f"nothing at {key}"}))
        if answer is HANG:
            self.server.released.wait(20)
            return
        if isinstance(answer, Slow):
            time.sleep(answer.delay_s)
            answer = answer.answer
        status, content = answer if isinstance(answer, tuple) else (200, answer)
        data = b"" if status == 204 else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_POST = do_DELETE = do_GET

    def address_string(self) -> str:
        return "unix"

    def log_message(self, format: str, *arguments: Any) -> None:
        """Keep quiet."""


@contextmanager
def serve_engine(folder: Path, answers: dict[str, Any]) -> Iterator[EngineServer]:
    """An engine that answers with Docker's version and info, and whatever `answers` adds or replaces."""
    known = {"GET /version": DOCKER_VERSION, "GET /info": DOCKER_INFO, "GET /containers/json": [], **answers}
    with EngineServer(folder / "engine.sock", known) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server
        finally:
            server.released.set()
            server.shutdown()
            thread.join()
