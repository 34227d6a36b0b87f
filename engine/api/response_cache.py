"""Answers that are given again: what may be, and what the client is told of it. An answer that is given a second time
is kept in the bytes that it was written as, for `kept_answers`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from fastapi import Request, Response

from engine.api.choices import Choices
from engine.api.kept_answers import CREATED, HEADER, ID, fill, headers_of, is_bypassed, key_of
from engine.api.request_ids import request_id_of
from engine.api.schemas import SamplingBody
from engine.gateway import Gateway, SharedStream, Written
from engine.inference.request import Request as EngineRequest

__all__ = ["CREATED", "ID", "allow_cache", "answer_kept", "cache_headers"]


def allow_cache(http: Request, body: SamplingBody, requests: Sequence[EngineRequest]) -> list[EngineRequest]:
    """`requests` with leave to be answered from the cache, where the client asks for one answer and does not refuse a
    kept one. A seed that was drawn for it asks for no particular answer."""
    is_one = body.temperature == 0 or body.seed is not None
    is_cacheable = is_one and not is_bypassed(headers_of(http.scope))
    return [replace(request, is_cacheable=is_cacheable) for request in requests]


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
    """The answer to this request, given one that was `written` with the marks `ID` and `CREATED` from kept answers;
    that one is kept from now on."""
    streams = [stream for stream in choices.streams if isinstance(stream, SharedStream)]
    encoded = Written(bytes(written.body), str(written.media_type), prefix)
    key = key_of(http.scope, headers_of(http.scope), await http.body())
    gateway.cache.keep_encoded(key, streams, gateway.identity(streams[0].request.model), encoded)
    return fill(encoded, request_id_of(http, prefix), int(streams[0].received_at_s), headers)
