"""A model hub on loopback: the hub's routes on one port, its storage on another, and what goes wrong on request."""

from __future__ import annotations

import functools
import hashlib
import json
import re
import threading
import time
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

from engine.weights.hub import Hub

_STORED = (".safetensors", ".gguf", ".bin")  # what the hub keeps in storage, with a SHA-256


@dataclass(frozen=True)
class Fault:
    """What one answer does instead of being right. `status` answers that, `drop_after` closes after so many bytes of
    the body, `flip_byte` changes one at that offset of the file, `bytes_per_s` is slow, `hang_s` waits first,
    `content` is another file, `is_range_ignored` sends the whole, `etag` another one."""

    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    drop_after: int | None = None
    flip_byte: int | None = None
    bytes_per_s: float | None = None
    hang_s: float = 0.0
    content: bytes | None = None
    is_range_ignored: bool = False
    is_if_range_ignored: bool = False
    etag: str | None = None


NO_FAULT = Fault()


@dataclass(frozen=True)
class Seen:
    """One request: at "hub" or "storage", its path without the query, and its headers."""

    where: str
    path: str
    headers: Mapping[str, str]


class HubServer:
    """`faults[path]` are used up, one an answer with that file's bytes; `faults["api"]` are those of descriptions."""

    def __init__(self) -> None:
        self.faults: defaultdict[str, deque[Fault]] = defaultdict(deque)
        self.files: dict[tuple[str, str], dict[str, bytes]] = {}
        self.branches: dict[tuple[str, str], str] = {}
        self.extra_siblings: list[dict[str, Any]] = []
        self.has_digests = True
        self.seen: list[Seen] = []
        self.token: str | None = None
        self.sent_bytes = 0  # of bodies that are sent slowly
        self.hub = _Server(self, "hub")
        self.storage = _Server(self, "storage")

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.hub.server_address[1]}"

    def door(self, **options: Any) -> Hub:
        return Hub(self.endpoint, **options)

    def publish(self, repo_id: str, files: Mapping[str, bytes], branch: str = "main") -> str:
        """Put a commit on the branch; its name."""
        listing = repr(sorted((path, hashlib.sha1(content).hexdigest()) for path, content in files.items()))
        commit = hashlib.sha1(f"{repo_id}{listing}".encode()).hexdigest()
        self.files[repo_id, commit] = dict(files)
        self.branches[repo_id, branch] = commit
        return commit

    def fail(self, path: str, *faults: Fault) -> None:
        self.faults[path].extend(faults)

    def requests(self, path: str) -> list[Seen]:
        """Those for the bytes of a file, where they were sent from; "api" for descriptions."""
        wanted = "/api/" if path == "api" else f"/{path}"
        where = "storage" if path.endswith(_STORED) else "hub"
        return [seen for seen in self.seen if wanted in seen.path and seen.where == where]

    def next_fault(self, path: str) -> Fault:
        faults = self.faults[path]
        return faults.popleft() if faults else NO_FAULT


@functools.lru_cache
def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@functools.lru_cache
def git_sha1(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@contextmanager
def serve_hub() -> Iterator[HubServer]:
    server = HubServer()
    threads = [
        threading.Thread(target=each.serve_forever, args=(0.02,), daemon=True) for each in (server.hub, server.storage)
    ]
    for thread in threads:
        thread.start()
    try:
        yield server
    finally:
        for each in (server.hub, server.storage):
            each.shutdown()
            each.server_close()
        for thread in threads:
            thread.join(5)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 32

    def __init__(self, owner: HubServer, role: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.owner = owner
        self.role = role

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients of these tests go away in the middle on purpose."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def log_message(self, format: str, *arguments: Any) -> None:
        """Silence: the tests look at `seen`."""

    def do_GET(self) -> None:
        owner, path = self.server.owner, unquote(urlsplit(self.path).path)
        owner.seen.append(Seen(self.server.role, path, dict(self.headers)))
        if found := re.fullmatch(r"/storage/([^/]+/[^/]+)/([0-9a-f]{40})/(.+)", path):
            self._send_file(found[3], owner.files[found[1], found[2]][found[3]], is_stored=True)
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/revision/(.+)", path):
            self._describe(found[1], found[2])
        elif found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([0-9a-f]{40})/(.+)", path):
            self._resolve(found[1], found[2], found[3])
        else:
            self._send(404, {}, b"")

    def _describe(self, repo_id: str, revision: str) -> None:
        owner, fault = self.server.owner, self.server.owner.next_fault("api")
        time.sleep(fault.hang_s)
        commit = owner.branches.get((repo_id, revision), revision)
        if fault.status is not None or self._is_unknown():
            self._send(fault.status or 401, fault.headers, b"")
        elif not any(known == repo_id for known, _ in owner.files):
            self._send(404, {"X-Error-Code": "RepoNotFound"}, b"")
        elif (repo_id, commit) not in owner.files:
            self._send(404, {"X-Error-Code": "RevisionNotFound"}, b"")
        else:
            siblings = [self._sibling(path, content) for path, content in owner.files[repo_id, commit].items()]
            described = {"id": repo_id, "sha": commit, "siblings": siblings + owner.extra_siblings}
            body = json.dumps(described).encode() if fault.content is None else fault.content
            self._send(200, {"Content-Type": "application/json"}, body)

    def _sibling(self, path: str, content: bytes) -> dict[str, Any]:
        if not self.server.owner.has_digests:
            return {"rfilename": path}
        sibling = {"rfilename": path, "size": len(content), "blobId": git_sha1(content)}
        if path.endswith(_STORED):
            sibling["lfs"] = {"sha256": sha256(content), "size": len(content), "pointerSize": 135}
        return sibling

    def _resolve(self, repo_id: str, commit: str, path: str) -> None:
        content = self.server.owner.files[repo_id, commit][path]
        if self._is_unknown():
            self._send(401, {}, b"")
        elif not path.endswith(_STORED):
            self._send_file(path, content, is_stored=False, headers={"X-Repo-Commit": commit})
        else:
            port = self.server.owner.storage.server_address[1]
            headers = {
                "Location": f"http://127.0.0.1:{port}/storage/{repo_id}/{commit}/{path}?Signature=signed",
                "X-Repo-Commit": commit,
                "X-Linked-Etag": f'"{sha256(content)}"',
                "X-Linked-Size": str(len(content)),
                "ETag": f'"{git_sha1(content)}"',
            }
            self._send(302, headers, b"")

    def _send_file(self, path: str, content: bytes, is_stored: bool, headers: Mapping[str, str] | None = None) -> None:
        fault = self.server.owner.next_fault(path)
        time.sleep(fault.hang_s)
        if fault.status is not None:
            self._send(fault.status, fault.headers, b"")
            return
        content = content if fault.content is None else fault.content
        if fault.flip_byte is not None:
            changed = bytearray(content)
            changed[fault.flip_byte] ^= 1
            content = bytes(changed)
        etag = fault.etag or f'"{(sha256 if is_stored else git_sha1)(content)[:32]}"'
        start, stop = self._range(etag, fault)
        if start >= len(content) > 0:
            self._send(416, {"Content-Range": f"bytes */{len(content)}"}, b"")
            return
        sent = {**(headers or {}), "ETag": etag, "Accept-Ranges": "bytes"}
        part = content[start:stop]
        if len(part) < len(content):
            sent["Content-Range"] = f"bytes {start}-{start + len(part) - 1}/{len(content)}"
        self._send(206 if len(part) < len(content) else 200, sent, part, fault)

    def _range(self, etag: str, fault: Fault) -> tuple[int, int | None]:
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        condition = self.headers.get("If-Range", etag)
        is_other = condition != etag and not fault.is_if_range_ignored
        if asked is None or fault.is_range_ignored or is_other:
            return 0, None
        return int(asked[1]), int(asked[2]) + 1 if asked[2] else None

    def _is_unknown(self) -> bool:
        token = self.server.owner.token
        return token is not None and self.headers.get("Authorization") != f"Bearer {token}"

    def _send(self, status: int, headers: Mapping[str, str], body: bytes, fault: Fault = NO_FAULT) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if fault.bytes_per_s is not None:
            self._send_slowly(body, fault.bytes_per_s)
        elif fault.drop_after is not None:
            self.wfile.write(body[: fault.drop_after])
            self.wfile.flush()
            self.close_connection = True
        else:
            self.wfile.write(body)

    def _send_slowly(self, body: bytes, bytes_per_s: float) -> None:
        step = max(1, int(bytes_per_s / 50))
        for start in range(0, len(body), step):
            self.wfile.write(body[start : start + step])
            self.server.owner.sent_bytes += step
            time.sleep(step / bytes_per_s)
