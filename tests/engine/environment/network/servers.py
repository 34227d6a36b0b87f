"""Real servers on loopback: a hub, a registry, proxies, one that hangs and one with TLS."""

from __future__ import annotations

import select
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest


class Server(ThreadingHTTPServer):
    """Answers every request with `status` and `content_type`; `seen` are (method, target, proxy sign-in).

    A CONNECT is refused with `connect_status`, or with 200 led to where it says.
    """

    daemon_threads = True

    def __init__(self, status: int, content_type: str, connect_status: int) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.status = status
        self.content_type = content_type
        self.connect_status = connect_status
        self.seen: list[tuple[str, str, str | None]] = []

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that breaks off its TLS is what some tests are about."""


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self._note()
        self.send_response(self.server.status)
        self.send_header("Content-Type", self.server.content_type)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"[]")

    def do_CONNECT(self) -> None:
        self._note()
        self.send_response(self.server.connect_status)
        self.end_headers()
        if self.server.connect_status == 200:
            host, port = self.path.rsplit(":", 1)
            with socket.create_connection((host, int(port)), timeout=5) as far:
                _relay(self.connection, far)

    def _note(self) -> None:
        self.server.seen.append((self.command, self.path, self.headers.get("Proxy-Authorization")))

    def log_message(self, format: str, *arguments: Any) -> None:
        """Keep quiet."""


def _relay(near: socket.socket, far: socket.socket) -> None:
    deadline_s = time.monotonic() + 10
    while time.monotonic() < deadline_s:
        ready, _, _ = select.select([near, far], [], [], 0.2)
        for end in ready:
            data = end.recv(65_536)
            if not data:
                return
            (far if end is near else near).sendall(data)


@contextmanager
def serve(
    status: int = 200,
    content_type: str = "application/json",
    connect_status: int = 403,
    tls: ssl.SSLContext | None = None,
) -> Iterator[Server]:
    """A server on a port of its own."""
    with Server(status, content_type, connect_status) as server:
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def make_certificate(folder: Path) -> tuple[ssl.SSLContext, Path]:
    """A self-signed certificate for 127.0.0.1: a server's context, and the file for a client to trust."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("there is no openssl to make a certificate with")
    key, certificate = folder / "key.pem", folder / "cert.pem"
    command = [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-keyout", str(key), "-out", str(certificate), "-days", "2", "-subj", "/CN=127.0.0.1"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run(command, check=True, capture_output=True, timeout=30)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context, certificate


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
