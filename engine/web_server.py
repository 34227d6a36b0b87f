"""The HTTP server of both programs: uvicorn over httptools and uvloop, with bounds on a request's head that they lack.

A client may take so long for a request's line and headers, and send so much of them, and no longer or more: else each
connection that sends a byte now and then would be held for ever, and what it sends would be kept in memory. A body has
its own bounds (api/body_limit.py), as has a connection between two requests (uvicorn's `timeout_keep_alive`).
"""

from __future__ import annotations

import asyncio
from enum import Enum, auto

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_TIMEOUT_S = 20.0
MAX_HEAD_BYTES = 64 * 1024
_SHUTDOWN_S = 10


class _Part(Enum):
    """What of a request the client is sending; nothing between two of them."""

    NOTHING = auto()
    HEAD = auto()
    BODY = auto()


class BoundedHttp(HttpToolsProtocol):
    """One connection. A request that comes in one piece costs no timer."""

    _part = _Part.NOTHING
    _num_head_bytes = 0
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Count the time from here: a connection on which nothing comes is not kept either."""
        super().connection_made(transport)
        self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Its timer goes with it."""
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Bytes count that come while a head has begun and not ended; and time, while no request is being answered."""
        before = self._part
        super().data_received(data)
        if self.transport.is_closing() or self.transport.get_protocol() is not self:  # a WebSocket since
            return
        if before is self._part is _Part.HEAD:
            self._num_head_bytes += len(data)
        if self._num_head_bytes > MAX_HEAD_BYTES:
            self._refuse(b"431 Request Header Fields Too Large")
        elif self._timer is None and (self._part is _Part.HEAD or not self._is_answering):
            self._start_timer()

    def on_message_begin(self) -> None:
        """A head begins."""
        super().on_message_begin()
        self._part = _Part.HEAD

    def on_headers_complete(self) -> None:
        """It has ended."""
        self._part, self._num_head_bytes = _Part.BODY, 0
        self._stop_timer()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The body has too. Where it was answered before, as one that is too large is, the time for the rest of it
        was counted, so that what nobody reads is not sent for ever."""
        self._part = _Part.NOTHING
        super().on_message_complete()

    @property
    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _start_timer(self) -> None:
        self._timer = self.loop.call_later(HEAD_TIMEOUT_S, self._give_up)

    def _give_up(self) -> None:
        if self._is_answering:
            self._start_timer()  # the head is the next one's, on the same connection
        elif self._part is _Part.HEAD:
            self._refuse(b"408 Request Timeout")
        else:
            self.transport.close()

    def _refuse(self, status: bytes) -> None:
        self._stop_timer()
        if not self.transport.is_closing():
            self.transport.write(b"HTTP/1.1 " + status + b"\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
            self.transport.close()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def build_server(app: ASGIApp) -> uvicorn.Server:
    """A server of `app` that logs nothing by itself and gives requests some seconds to end when it is told to stop."""
    config = uvicorn.Config(
        app, loop="uvloop", http=BoundedHttp, log_config=None, timeout_graceful_shutdown=_SHUTDOWN_S
    )
    return uvicorn.Server(config)
