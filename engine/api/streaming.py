"""From a request's stream to a response: whole, or as server-sent events. A client that leaves ends its request."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Protocol

from fastapi import Request
from fastapi.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from engine.errors import WorkerDiedError
from engine.inference.outputs import OutputStream
from engine.inference.request import Delta, Finished, TokenInfo
from engine.inference.tools import CallPiece, ToolCall, join_pieces

DONE = "data: [DONE]\n\n"


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer."""

    text: str
    tokens: tuple[TokenInfo, ...]
    finished: Finished
    calls: tuple[ToolCall, ...] = ()


class Closable(Protocol):
    """Whatever holds requests that end with it."""

    def close(self) -> None:
        """Cancel what has not ended."""


_EVENTS = "text/event-stream"


class EventResponse(StreamingResponse):
    """Server-sent events. Closes the stream also when the client left before the first of them, where the
    generator's own `finally` never runs."""

    def __init__(self, stream: Closable, events: AsyncIterator[str], headers: dict[str, str]) -> None:
        super().__init__(events, media_type=_EVENTS, headers=headers)
        self._stream = stream

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._stream.close()


async def whole_events(events: AsyncIterator[str]) -> Response:
    """All events at once, of an answer that is there already."""
    return Response("".join([event async for event in events]), media_type=_EVENTS)


async def collect(stream: OutputStream, http: Request) -> Answer:
    """Wait for the whole answer.

    Raises:
        ConsoleError: the request ended before its answer was complete; see `Finished.failure`.
    """
    text: list[str] = []
    tokens: list[TokenInfo] = []
    pieces: list[CallPiece] = []
    async with ended_with_client(stream, http):
        async for event in stream:
            if isinstance(event, Delta):
                text.append(event.text)
                tokens.extend(event.tokens)
                pieces.extend(event.calls)
    if stream.finished is None:
        raise WorkerDiedError("the request ended without an answer; send it again")
    failure = stream.finished.failure()
    if failure is not None:
        raise failure
    return Answer("".join(text), tuple(tokens), stream.finished, join_pieces(pieces))


@asynccontextmanager
async def ended_with_client(held: Closable, http: Request) -> AsyncIterator[None]:
    """Close `held` when the client leaves during the block, and at its end."""
    watcher = asyncio.create_task(_close_on_disconnect(held, http))
    try:
        yield
    finally:
        held.close()
        watcher.cancel()
        with suppress(asyncio.CancelledError):
            await watcher


async def _close_on_disconnect(held: Closable, http: Request) -> None:
    """The body was read before, so the next message of the connection is its end."""
    while (await http.receive())["type"] != "http.disconnect":
        pass
    held.close()


def sse(data: dict[str, Any]) -> str:
    """One server-sent event."""
    return f"data: {json.dumps(data, ensure_ascii=False, separators=(',', ':'))}\n\n"
