"""The one door to the model hub, Hugging Face's or a mirror of it.

It speaks the hub's two routes itself, over the HTTP client that huggingface_hub uses, because huggingface_hub's own
calls cannot promise what is promised here: HfApi reads HF_ENDPOINT and HF_HUB_OFFLINE once, at import; it waits for a
connection without a limit and through one client for the whole process; building its headers reads a token file and
asks the hub for a list of programs, which is a request of its own even to be told that one is offline. Its download
(`http_get`) has no If-Range, cannot be cancelled while it waits, checks no digest, and files what it gets by the hub's
ETag, not by content.

The token goes to the endpoint alone: the client drops it when a redirect leads to another host or port. It is in no
message, no repr and no file.
"""

from __future__ import annotations

import json
import os
import re
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import httpx2

from engine.environment.network.address import Address, parse_address
from engine.errors import WeightsError
from engine.weights.repository import Repository, parse_repository
from engine.weights.sources import is_commit
from engine.weights.trouble import HubError, Trouble, explain_break, explain_status

DEFAULT_ENDPOINT = "https://huggingface.co"
_TOKEN_VARIABLES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
_OFFLINE_VARIABLES = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
_TRUE = ("1", "ON", "YES", "TRUE")  # as huggingface_hub reads its switches
_MAX_LISTING_BYTES = 64 << 20
_POLL_S = 0.1


@dataclass(frozen=True, slots=True)
class Body:
    """A file's bytes on their way. `start_byte` is where they begin: 0 if the hub did not honour the range.

    `total_bytes` is the whole file's size and `etag` its strong ETag at the host that sends it.
    """

    start_byte: int
    total_bytes: int | None
    etag: str | None
    chunks: Iterator[bytes]


class Hub:
    """Where the hub is and how to sign in. Holds no connection."""

    def __init__(
        self,
        endpoint: str = DEFAULT_ENDPOINT,
        token: str | None = None,
        offline_by: str | None = None,
        connect_timeout_s: float = 2.0,
        read_timeout_s: float = 20.0,
    ) -> None:
        address = parse_address(endpoint)
        if address is None or address.scheme not in ("http", "https"):
            raise WeightsError(
                "HF_ENDPOINT is malformed (not shown, since it may hold a password): "
                f"`export HF_ENDPOINT={DEFAULT_ENDPOINT}`, or unset it"
            )
        if token is not None and not (token.isascii() and token.isprintable() and " " not in token):
            raise WeightsError("HF_TOKEN holds a character that no HTTP header can carry (not shown): set it again")
        self._address: Address = address
        self._token = token
        self.offline_by = offline_by
        self._connect_timeout_s = connect_timeout_s
        self._read_timeout_s = read_timeout_s

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> Hub:
        """By HF_ENDPOINT, HF_TOKEN (or HUGGING_FACE_HUB_TOKEN) and HF_HUB_OFFLINE, read now.

        Raises:
            WeightsError: the endpoint is no URL, or no header can carry the token.
        """
        token = next((environ[name].strip() for name in _TOKEN_VARIABLES if environ.get(name, "").strip()), None)
        offline = (name for name in _OFFLINE_VARIABLES if environ.get(name, "").upper() in _TRUE)
        return cls(
            environ.get("HF_ENDPOINT") or DEFAULT_ENDPOINT,
            token,
            next((f"{name}={environ[name]}" for name in offline), None),
        )

    def __repr__(self) -> str:
        return f"Hub({self.endpoint!r}, {'with' if self._token else 'without'} a token)"

    @property
    def endpoint(self) -> str:
        """The hub's address, without user and password."""
        return self._address.shown

    def describe(self, repo_id: str, revision: str, on_wait: Callable[[], None]) -> Repository:
        """The files of `repo_id` at `revision`, and the commit that it stands for now.

        `on_wait` is called ten times a second while the hub is silent, and may raise. The request runs in a thread of
        its own, since no time limit holds for the resolution of a name, and is left behind when the time is over.

        Raises:
            HubError: the hub cannot be reached within the connect timeout, refuses, or answers nonsense.
        """
        if self.offline_by is not None:
            raise HubError(f"the hub is switched off by {self.offline_by}", Trouble.OFFLINE)
        call = _Call(lambda on_connect: self._read_listing(repo_id, revision, on_connect))
        return call.wait(self._connect_timeout_s, on_wait, self.endpoint)

    def _read_listing(self, repo_id: str, revision: str, on_connect: Callable[[], None]) -> Repository:
        path = f"/api/models/{repo_id}/revision/{quote(revision, safe='')}"
        with self.session() as session:
            content = session.read(path, {"blobs": "true"}, f"{repo_id}@{revision}", on_connect)
        try:
            data = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise HubError(
                f"{self.endpoint} answers with something that is not the hub's: correct HF_ENDPOINT, or sign in to "
                "the network whose own page answers for it",
                Trouble.MALFORMED,
            ) from error
        repository = parse_repository(repo_id, data)
        if is_commit(revision) and repository.commit != revision:
            raise HubError(f"asked for commit {revision}, the hub answers with another one", Trouble.MALFORMED)
        return repository

    @contextmanager
    def session(self) -> Iterator[HubSession]:
        """Connections for a while; several threads may use it at once."""
        credentials = self._address.credentials
        headers = {"User-Agent": "autoglm-console", "Accept-Encoding": "identity"}
        if self._token is not None and credentials is None:
            headers["Authorization"] = f"Bearer {self._token}"
        timeout = httpx2.Timeout(self._read_timeout_s, connect=self._connect_timeout_s)
        with httpx2.Client(
            headers=headers, auth=credentials, timeout=timeout, follow_redirects=True, max_redirects=5
        ) as client:
            yield HubSession(client, self.endpoint, has_token="Authorization" in headers)


class HubSession:
    """The hub's routes over open connections."""

    def __init__(self, client: httpx2.Client, endpoint: str, has_token: bool) -> None:
        self._client = client
        self._endpoint = endpoint
        self._has_token = has_token
        self._streams: list[Any] = []

    def abort(self) -> None:
        """End whatever waits for the network, from another thread."""
        for stream in self._streams:
            with suppress(OSError):  # closed already
                stream.get_extra_info("socket").shutdown(socket.SHUT_RDWR)

    def read(self, path: str, params: Mapping[str, str], what: str, on_connect: Callable[[], None]) -> bytes:
        """A small answer, whole."""

        with self._answer(path, what, {}, on_connect, params=params) as response:
            content = bytearray()
            for chunk in _reported_chunks(response.iter_bytes(), self._endpoint):
                content += chunk
                if len(content) > _MAX_LISTING_BYTES:
                    raise HubError(f"the hub's description of {what} has no end", Trouble.MALFORMED)
            return bytes(content)

    @contextmanager
    def fetch(
        self,
        repository: Repository,
        path: str,
        start_byte: int = 0,
        etag: str | None = None,
        stop_byte: int | None = None,
    ) -> Iterator[Body]:
        """A file from `start_byte` on, if it still is the one with `etag`; else from its beginning. With `stop_byte`
        no more is asked for than what comes before it; a server that sends more is not read further than `chunks` are.

        Raises:
            HubError: it refuses, or the connection breaks, also while `chunks` are read.
        """
        headers = {}
        if start_byte > 0 or stop_byte is not None:
            headers["Range"] = f"bytes={start_byte}-{'' if stop_byte is None else stop_byte - 1}"
            if etag is not None:
                headers["If-Range"] = etag
        route = f"/{repository.repo_id}/resolve/{repository.commit}/{quote(path)}"
        with self._answer(route, f"{path} of {repository.repo_id}", headers, lambda: None) as response:
            sent = (response.history or [response])[0].headers.get("X-Repo-Commit")
            if sent is not None and sent != repository.commit:
                raise HubError(f"{path}: asked for commit {repository.commit}, got another one", Trouble.MALFORMED)
            yield _read_body(response, self._endpoint)

    @contextmanager
    def _answer(
        self,
        path: str,
        what: str,
        headers: Mapping[str, str],
        on_connect: Callable[[], None],
        params: Mapping[str, str] | None = None,
    ) -> Iterator[httpx2.Response]:
        def trace(event: str, info: Mapping[str, Any]) -> None:
            if event.endswith(("connect_tcp.complete", "start_tls.complete")):
                self._streams.append(info["return_value"])
                on_connect()

        url = f"{self._endpoint}{path}"
        extensions = {"trace": trace}
        try:
            with self._client.stream("GET", url, headers=headers, params=params, extensions=extensions) as response:
                if response.status_code not in (200, 206):
                    raise explain_status(response, what, self._endpoint, self._has_token)
                yield response
        except (httpx2.TransportError, httpx2.TooManyRedirects, httpx2.InvalidURL) as error:
            raise explain_break(error, self._endpoint) from error


def _read_body(response: httpx2.Response, endpoint: str) -> Body:
    is_encoded = response.headers.get("Content-Encoding", "identity") != "identity"
    total = None if is_encoded else response.headers.get("Content-Length")
    start_byte = 0
    if response.status_code == 206:
        found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
        if found is None or is_encoded:
            raise HubError(f"{endpoint} answers a range with something else", Trouble.MALFORMED)
        start_byte, total = int(found[1]), found[2]
    etag = response.headers.get("ETag")
    return Body(
        start_byte,
        int(total) if total and total.isdigit() else None,
        etag if etag and etag.startswith('"') else None,
        _reported_chunks(response.iter_bytes() if is_encoded else response.iter_raw(), endpoint),
    )


def _reported_chunks(chunks: Iterator[bytes], endpoint: str) -> Iterator[bytes]:
    try:
        yield from chunks
    except (httpx2.TransportError, httpx2.DecodingError) as error:
        raise explain_break(error, endpoint) from error


class _Call:
    """One request in a thread that may be left behind."""

    def __init__(self, work: Callable[[Callable[[], None]], Repository]) -> None:
        self._work = work
        self._connected, self._done = threading.Event(), threading.Event()
        self._result: Repository | None = None
        self._error: BaseException | None = None

    def wait(self, connect_timeout_s: float, on_wait: Callable[[], None], endpoint: str) -> Repository:
        threading.Thread(target=self._run, name="hub-request", daemon=True).start()
        left = round(connect_timeout_s / _POLL_S)
        while not self._done.wait(_POLL_S):
            on_wait()
            left -= 1
            if left <= 0 and not self._connected.is_set():
                raise HubError(
                    f"{endpoint} cannot be reached (no answer within {connect_timeout_s:g} s)", Trouble.UNREACHABLE
                )
        if self._result is None:
            raise self._error or HubError(f"{endpoint} gave no answer", Trouble.BROKEN)
        return self._result

    def _run(self) -> None:
        try:
            self._result = self._work(self._connected.set)
        except BaseException as error:  # noqa: BLE001 - raised again by the thread that waits
            self._error = error
        finally:
            self._done.set()
