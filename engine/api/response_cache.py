"""Answers that are given again: what may be, what the client is told of it, and the shortest way to one.

An answer that is given a second time is kept in the bytes that it was written as. The third time the same bytes come
with the same key, nothing is parsed and no thread is asked: the key is checked, quotas are held to, and the record is
written as ever.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute

from engine.api.auth import authorize, secret_of
from engine.api.choices import Choices
from engine.api.provider import console_of
from engine.api.quotas import open_meter
from engine.api.request_ids import request_id_of
from engine.api.schemas import SamplingBody
from engine.console import Console
from engine.errors import ConsoleError
from engine.gateway import EncodedAnswer, Gateway, SharedStream, Written
from engine.inference.request import Request as EngineRequest
from engine.inference.request import Timing
from engine.scheduling.quotas import Meter
from engine.state.api_keys import Scope

HEADER = "x-cache"
# What stands in kept bytes where each answer has its own; drawn, so that no text holds them.
ID = f"kept-{uuid.uuid4().hex}"
CREATED = 10**15 + uuid.uuid4().int % 10**15
_ID, _CREATED = ID.encode(), str(CREATED).encode()
_metered = asynccontextmanager(open_meter)
_BYPASS = frozenset({"no-cache", "no-store"})


class CachedRoute(APIRoute):
    """A route whose kept answers need none of what comes before an endpoint."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The ordinary handler, where nothing is kept for a request."""
        ordinary = super().get_route_handler()

        async def handle(http: Request) -> Response:
            return await _answer_again(http) or await ordinary(http)

        return handle


def allow_cache(http: Request, body: SamplingBody, requests: Sequence[EngineRequest]) -> list[EngineRequest]:
    """`requests` with leave to be answered from the cache, where the client asks for one answer and does not refuse a
    kept one. A seed that was drawn for it asks for no particular answer."""
    is_one = body.temperature == 0 or body.seed is not None
    return [replace(request, is_cacheable=is_one and not _is_bypassed(http)) for request in requests]


def cache_headers(gateway: Gateway, choices: Choices) -> dict[str, str]:
    """What became of the question for a kept answer; nothing where none are kept."""
    if not gateway.cache.is_on:
        return {}
    shared = [stream for stream in choices.streams if isinstance(stream, SharedStream)]
    if not shared:
        return {HEADER: "BYPASS"}
    return {HEADER: "HIT" if len(shared) == len(choices.streams) and all(one.is_hit for one in shared) else "MISS"}


async def answer_kept(
    http: Request, gateway: Gateway, choices: Choices, written: Response, prefix: str, headers: dict[str, str]
) -> Response:
    """The answer to this request, given one that was `written` with the marks of this module from kept answers; that
    one is kept from now on."""
    streams = [stream for stream in choices.streams if isinstance(stream, SharedStream)]
    encoded = Written(bytes(written.body), str(written.media_type), prefix)
    gateway.cache.keep_encoded(await _key_of(http), streams, gateway.identity(streams[0].request.model), encoded)
    return _fill(encoded, request_id_of(http, prefix), int(streams[0].received_at_s), headers)


async def _answer_again(http: Request) -> Response | None:
    """A kept answer to just these bytes; None where there is none."""
    console: Console = console_of(http)
    cache = console.gateway.cache
    if not cache.is_on or _is_bypassed(http):
        return None
    timing = Timing(console.clock.wall(), console.clock.monotonic())
    found = cache.find_encoded(await _key_of(http))
    if found is None or console.gateway.identity(found.model) != found.identity:
        return None
    try:
        caller = authorize(console.keys, secret_of(http), Scope.INFERENCE)
    except ConsoleError:
        return None  # the ordinary way says so; a row of a batch has another way to tell whose it is
    if caller.key_id != found.choices[0].request.key_id:
        return None
    async with _metered(http, caller) as meter:
        return _give(http, console, meter, found, timing)


def _give(http: Request, console: Console, meter: Meter, found: EncodedAnswer, timing: Timing) -> Response:
    request_id, note = request_id_of(http, found.written.id_prefix), console.gateway.cache.note_choice
    for index, choice in enumerate(found.choices):
        own_id = request_id if len(found.choices) == 1 else f"{request_id}-{index}"
        meter.replay(choice.request, own_id, partial(note, choice, timing))
    return _fill(found.written, request_id, int(timing.received_at_s), {HEADER: "HIT", **meter.headers()})


def _fill(written: Written, request_id: str, created: int, headers: dict[str, str]) -> Response:
    body = written.body.replace(_CREATED, str(created).encode()).replace(_ID, request_id.encode())
    return Response(body, media_type=written.media_type, headers=headers)


async def _key_of(http: Request) -> bytes:
    """A digest of all that the answer depends on: the path, the caller's key, how the body is to be read, and it."""
    headers = http.headers
    told = (http.scope["path"], headers.get("authorization", ""), headers.get("content-type", ""))
    return hashlib.sha256(repr(told).encode() + await http.body()).digest()


def _is_bypassed(http: Request) -> bool:
    asked = http.headers.get("cache-control", "")
    return any(word.strip().lower() in _BYPASS for word in asked.split(","))
