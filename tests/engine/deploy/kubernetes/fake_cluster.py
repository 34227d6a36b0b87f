"""An API server on loopback that gives the answers it is told, and the kubeconfig for it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
WHOAMI = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
APPS = {"name": "apps", "versions": [{"version": "v1"}], "preferredVersion": {"version": "v1"}}


class FakeCluster:
    """`answers` are JSON bodies by path, `statuses` the HTTP statuses other than 200; what is in neither is 404.

    `denied` are (verb, resource) that access reviews refuse; `asked` are the reviews' attributes and `queries` the
    query strings that came; `delays_s` are waited before a path's answer. With `token` set, other credentials get 401.
    """

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {"/version": {"gitVersion": "v1.36.1"}, "/apis": {"groups": [APPS]}}
        self.statuses: dict[str, int] = {}
        self.delays_s: dict[str, float] = {}
        self.denied: set[tuple[str, str]] = set()
        self.user: str | None = "jane"
        self.token: str | None = None
        self.asked: list[dict[str, str]] = []
        self.queries: list[tuple[str, dict[str, list[str]]]] = []
        self.server = "http://127.0.0.1:0"

    def add_group(self, name: str, *versions: str, resources: tuple[str, ...] | None = ()) -> None:
        """Register an API group; with `resources` None nothing answers behind it."""
        group = {"name": name, "versions": [{"version": version} for version in versions]}
        self.answers["/apis"]["groups"].append({**group, "preferredVersion": {"version": versions[-1]}})
        path = f"/apis/{name}/{versions[-1]}"
        if resources is None:
            self.statuses[path] = 503
        else:
            self.answers[path] = {"resources": [{"name": resource} for resource in resources]}

    def write_kubeconfig(self, folder: Path, user: dict[str, Any] | None = None) -> Path:
        """A kubeconfig of one context, `fake`."""
        document = {
            "current-context": "fake",
            "contexts": [{"name": "fake", "context": {"cluster": "fake", "user": "someone"}}],
            "clusters": [{"name": "fake", "cluster": {"server": self.server}}],
            "users": [{"name": "someone", "user": user if user is not None else {"token": "secret"}}],
        }
        file = folder / "kubeconfig"
        file.write_text(json.dumps(document))
        return file

    def answer(self, method: str, target: str, body: Any, authorization: str | None) -> tuple[int, Any]:
        """The status and the JSON for one request."""
        url = urlsplit(target)
        self.queries.append((url.path, parse_qs(url.query)))
        time.sleep(self.delays_s.get(url.path, 0))
        if self.token is not None and authorization != f"Bearer {self.token}":
            return 401, {"kind": "Status", "message": "Unauthorized"}
        if url.path in self.statuses:
            return self.statuses[url.path], {"kind": "Status", "message": f"no {url.path} for you"}
        if method == "POST" and url.path == REVIEWS:
            attributes = body["spec"]["resourceAttributes"]
            self.asked.append(attributes)
            parts = (attributes["resource"], attributes.get("subresource"))
            resource = "/".join(part for part in parts if part)
            return 201, {"status": {"allowed": (attributes["verb"], resource) not in self.denied}}
        if method == "POST" and url.path == WHOAMI and self.user is not None:
            return 201, {"status": {"userInfo": {"username": self.user}}}
        if url.path in self.answers:
            answer = self.answers[url.path]
            page = parse_qs(url.query).get("continue", ["0"])[0]
            return 200, answer[int(page)] if isinstance(answer, list) else answer
        return 404, {"kind": "Status", "message": "the server could not find the requested resource"}


@contextmanager
def serve_fake_cluster() -> Iterator[FakeCluster]:
    """A fake cluster that answers until the end of the block."""
    fake = FakeCluster()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = 1 << 16  # one packet an answer: two would wait 40 ms for an acknowledgement

        def do_GET(self) -> None:
            self._answer(None)

        def do_POST(self) -> None:
            self._answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

        def _answer(self, body: Any) -> None:
            status, answer = fake.answer(self.command, self.path, body, self.headers.get("Authorization"))
            data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: Any) -> None:
            """Tests are quiet."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 64  # many checks connect at once; a full queue costs each a second

    server = Server(("127.0.0.1", 0), Handler)
    fake.server = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield fake
    finally:
        server.shutdown()
        thread.join(5)
        server.server_close()


def node(name: str = "a", *, ready: bool = True, **changes: Any) -> dict[str, Any]:
    """A node of 8 CPUs and 32 GiB as the API gives it; `changes` go into its status, labels, taints, unschedulable."""
    conditions = [{"type": "Ready", "status": "True" if ready else "Unknown"}]
    amounts = {"cpu": "8", "memory": "32Gi", **changes.get("amounts", {})}
    return {
        "metadata": {"name": name, "labels": changes.get("labels", {})},
        "spec": {"unschedulable": changes.get("unschedulable", False), "taints": changes.get("taints", [])},
        "status": {
            "conditions": conditions + changes.get("conditions", []),
            "allocatable": amounts,
            "capacity": {**amounts, **changes.get("capacity", {})},
        },
    }
