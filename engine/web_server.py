"""The HTTP server of both programs: uvicorn over httptools, with bounds on a request's head that neither of them has.

A client may take so long for a request's line and headers, and send so much of them, and no longer or more: else each
connection that sends a byte now and then would be held for ever, and what it sends would be kept in memory. A body has
its own bounds (api/body_limit.py), as has a connection between two requests (uvicorn's `timeout_keep_alive`).
"""

from __future__ import annotations

import asyncio

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_TIMEOUT_S = 20.0
MAX_HEAD_BYTES = 64 * 1024
_SHUTDOWN_S = 10


class BoundedHttp(HttpToolsProtocol):
    """One connection. A head that comes in one piece costs no timer."""

    _has_head = False
    _num_head_bytes = 0
    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Count the time from here: a connection on which nothing comes is not kept either."""
        super().connection_made(transport)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Its timer goes with it."""
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Also where the first bytes of a head come, and all that come before its end."""
        was_in_head = not self._has_head
        super().data_received(data)
        if self._has_head or self.transport.is_closing():
            return
        self._num_head_bytes += len(data) if was_in_head else 0
        if self._num_head_bytes > MAX_HEAD_BYTES:
            self._refuse(b"431 Request Header Fields Too Large")
        elif self._head_timer is None:
            self._await_head()

    def on_message_begin(self) -> None:
        """A head begins."""
        super().on_message_begin()
        self._has_head = False

    def on_headers_complete(self) -> None:
        """It has ended."""
        self._has_head, self._num_head_bytes = True, 0
        self._stop_timer()
        super().on_headers_complete()

    def on_response_complete(self) -> None:
        """What comes next is a head, but where one has come already."""
        self._has_head = bool(self.pipeline)
        super().on_response_complete()

    def _await_head(self) -> None:
        self._head_timer = self.loop.call_later(HEAD_TIMEOUT_S, self._give_up)

    def _give_up(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            self._await_head()  # the answer to the request before goes on
        else:
            self._refuse(b"408 Request Timeout")

    def _refuse(self, status: bytes) -> None:
        self._stop_timer()
        if not self.transport.is_closing():
            self.transport.write(b"HTTP/1.1 " + status + b"\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
            self.transport.close()

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None


def build_server(app: ASGIApp) -> uvicorn.Server:
    """A server of `app` that logs nothing by itself and gives requests some seconds to end when it is told to stop."""
    config = uvicorn.Config(app, http=BoundedHttp, log_config=None, timeout_graceful_shutdown=_SHUTDOWN_S)
    return uvicorn.Server(config)
