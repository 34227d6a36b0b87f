"""Bodies of requests: read whole before anybody is asked who sends them, within bounds of size, time and memory.

Starlette has a limit of its own, of the size alone, and fixed before the settings are known.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from engine.api.errors import console_error_response
from engine.config import Settings
from engine.errors import BodiesFullError, BodyTimeoutError, BodyTooLargeError, ConsoleError

# All bodies that are being read, in bodies of the largest size.
_MOST_BODIES = 32
# What the server holds for each connection anyway, so a body as small is read however full the rest is.
_FREE_BYTES = 64 * 1024
# Uploads go to a file as they come, and their endpoint has its own bound.
_STREAMED = frozenset({"/v1/files"})


@dataclass(frozen=True, slots=True)
class BodyBounds:
    """Of one body; the defaults hold until the console is open."""

    max_bytes: int = 8 * 2**20
    timeout_s: float = 60.0

    @classmethod
    def of(cls, settings: Settings) -> BodyBounds:
        """As the operator has set them."""
        return cls(settings.max_body_mib * 2**20, settings.body_timeout_s)


@dataclass(slots=True)
class _Reading:
    """A body that is being read; `held_bytes` of it count among those of all."""

    pieces: list[bytes] = field(default_factory=list)
    num_bytes: int = 0
    held_bytes: int = 0


class Bodies:
    """Reads bodies within `bounds`, which the server sets, and counts the bytes of those that are being read."""

    def __init__(self) -> None:
        self.bounds = BodyBounds()
        self._held_bytes = 0

    async def read(self, scope: Scope, receive: Receive) -> bytes | None:
        """The whole body; None where the client has left before its end. One that tells its size is refused by that
        before anything of it is read.

        Raises:
            BodyTooLargeError: it has more bytes than the bound.
            BodyTimeoutError: it has not arrived in time.
            BodiesFullError: many large bodies are being read.
        """
        length = Headers(scope=scope).get("content-length", "")
        if length.isdecimal():
            self._check_size(int(length), "has")
        reading, timeout_s = _Reading(), self.bounds.timeout_s
        try:
            async with asyncio.timeout(timeout_s):
                return await self._collect(reading, receive)
        except TimeoutError as error:
            raise BodyTimeoutError(
                f"the body did not end within {timeout_s:g} s, {reading.num_bytes:,} bytes of it came: send it faster, "
                "or raise CONSOLE_BODY_TIMEOUT_S"
            ) from error
        finally:
            self._held_bytes -= reading.held_bytes

    async def _collect(self, reading: _Reading, receive: Receive) -> bytes | None:
        while (message := await receive())["type"] == "http.request":
            reading.pieces.append(message.get("body", b""))
            reading.num_bytes += len(reading.pieces[-1])
            self._check_size(reading.num_bytes, "goes on after")
            self._hold(reading)
            if not message.get("more_body", False):
                return b"".join(reading.pieces)
        return None

    def _check_size(self, num_bytes: int, verb: str) -> None:
        most = self.bounds.max_bytes
        if num_bytes > most:
            raise BodyTooLargeError(
                f"the body {verb} {num_bytes:,} bytes, at most {most:,} are read: send less, or raise "
                "CONSOLE_MAX_BODY_MIB"
            )

    def _hold(self, reading: _Reading) -> None:
        more = max(0, reading.num_bytes - _FREE_BYTES) - reading.held_bytes
        most = _MOST_BODIES * self.bounds.max_bytes
        if more and self._held_bytes + more > most:
            raise BodiesFullError(
                f"bodies of {self._held_bytes:,} bytes are being read, at most {most:,} are at a time: try again later"
            )
        self._held_bytes += more
        reading.held_bytes += more


class BodyLimit:
    """ASGI middleware: `app` finds the whole body there, or is not asked at all."""

    def __init__(self, app: ASGIApp, bodies: Bodies) -> None:
        self._app = app
        self._bodies = bodies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Nobody is answered who has left."""
        if scope["type"] != "http" or scope["path"] in _STREAMED:
            await self._app(scope, receive, send)
            return
        try:
            body = await self._bodies.read(scope, receive)
        except ConsoleError as error:
            await console_error_response(error)(scope, receive, send)
            return
        if body is not None:
            await self._app(scope, again(body, receive), send)


def again(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives the body as one message, then what the connection has."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def next_message() -> Message:
        return messages.pop() if messages else await receive()

    return next_message
