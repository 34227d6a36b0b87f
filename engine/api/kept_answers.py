"""The shortest way to an answer: the third time the same bytes come with the same key, they get the bytes of the second
answer. Nothing is parsed and no thread is asked; the key is checked, quotas are held to, and the record is written as
ever.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable, Mapping
from functools import partial

from fastapi import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from engine.api.auth import admit
from engine.api.body_limit import again
from engine.api.errors import console_error_response
from engine.api.quotas import metered
from engine.api.request_ids import id_in
from engine.console import Console
from engine.errors import ConsoleError
from engine.gateway import EncodedAnswer, Written
from engine.inference.request import Timing
from engine.scheduling.quotas import Meter
from engine.state.api_keys import Scope as KeyScope

HEADER = "x-cache"
# What stands in kept bytes where each answer has its own; drawn, so that no text holds them.
ID = f"kept-{uuid.uuid4().hex}"
CREATED = 10**15 + uuid.uuid4().int % 10**15
_ID, _CREATED = ID.encode(), str(CREATED).encode()
_PATHS = frozenset({"/v1/chat/completions", "/v1/completions"})
_BYPASS = frozenset({b"no-cache", b"no-store"})


class KeptAnswers:
    """ASGI middleware behind `BodyLimit`, which gives it a body whole: answers what was answered before, and has `app`
    answer all else."""

    def __init__(self, app: ASGIApp, console: Callable[[], Console | None]) -> None:
        self._app = app
        self._console = console

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Nothing is looked up where nothing is kept."""
        console = self._console()
        is_asked = scope["type"] == "http" and scope["method"] == "POST" and scope["path"] in _PATHS
        if not is_asked or console is None or not console.gateway.cache.is_on:
            await self._app(scope, receive, send)
            return
        body: bytes = (await receive())["body"]
        answer = _answer(console, scope, body)
        if answer is None:
            await self._app(scope, again(body, receive), send)
        else:
            await answer(scope, receive, send)


def headers_of(scope: Scope) -> dict[bytes, bytes]:
    """By name; the first of those that were sent twice."""
    return dict(reversed(scope["headers"]))


def key_of(scope: Scope, headers: Mapping[bytes, bytes], body: bytes) -> bytes:
    """A digest of all that the answer depends on: the path, the caller's key, how the body is to be read, and it."""
    told = (scope["path"], headers.get(b"authorization"), headers.get(b"content-type"))
    return hashlib.sha256(repr(told).encode() + body).digest()


def is_bypassed(headers: Mapping[bytes, bytes]) -> bool:
    """Whether the client wants no kept answer."""
    asked = headers.get(b"cache-control")
    return asked is not None and any(word.strip().lower() in _BYPASS for word in asked.split(b","))


def fill(written: Written, request_id: str, created: int, headers: Mapping[str, str]) -> Response:
    """Kept bytes as the answer to this request."""
    body = written.body.replace(_CREATED, str(created).encode()).replace(_ID, request_id.encode())
    return Response(body, media_type=written.media_type, headers=headers)


def _answer(console: Console, scope: Scope, body: bytes) -> Response | None:
    headers = headers_of(scope)
    if is_bypassed(headers):
        return None
    timing = Timing(console.clock.wall(), console.clock.monotonic())
    found = console.gateway.cache.find_encoded(key_of(scope, headers, body))
    if found is None or console.gateway.identity(found.model) != found.identity:
        return None
    try:
        who, host = (headers.get(name, b"").decode("latin-1") for name in (b"authorization", b"host"))
        caller = admit(console, who, host, KeyScope.INFERENCE)
    except ConsoleError:
        return None  # the ordinary way says so
    if caller.key_id != found.choices[0].request.key_id:
        return None
    traceparent = headers.get(b"traceparent")
    try:
        with metered(console, caller, None if traceparent is None else traceparent.decode("latin-1")) as meter:
            return _give(console, scope, meter, found, timing)
    except ConsoleError as error:
        return console_error_response(error)


def _give(console: Console, scope: Scope, meter: Meter, found: EncodedAnswer, timing: Timing) -> Response:
    request_id, note = id_in(scope, found.written.id_prefix), console.gateway.cache.note_choice
    for index, choice in enumerate(found.choices):
        own_id = request_id if len(found.choices) == 1 else f"{request_id}-{index}"
        meter.replay(choice.request, own_id, partial(note, choice, timing))
    return fill(found.written, request_id, int(timing.received_at_s), {HEADER: "HIT", **meter.headers()})
