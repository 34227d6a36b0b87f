"""The id of a request: the client's own, or one that is drawn. Every answer has it as `x-request-id`."""

from __future__ import annotations

import random

from fastapi import Request
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from engine.api.errors import console_error_response
from engine.errors import InvalidRequestError
from engine.inference.request import check_request_id

HEADER = "x-request-id"
_KEY = "request_id"


class RequestIds:
    """ASGI middleware: puts the id on every answer, of errors too. One that a client sends is checked first."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """An id that is none is refused."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        state = scope["state"] = {**scope.get("state", {}), _KEY: None}

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                message.setdefault("headers", [])
                MutableHeaders(scope=message)[HEADER] = state[_KEY] or _draw("req-")
            await send(message)

        given = Headers(scope=scope).get(HEADER)
        try:
            state[_KEY] = None if given is None else check_request_id(given)
        except InvalidRequestError as error:
            await console_error_response(error)(scope, receive, send_with_id)
            return
        await self._app(scope, receive, send_with_id)


def request_id_of(http: Request, prefix: str = "req-") -> str:
    """What the client sent as `x-request-id`, which its record has too; else `prefix` and random letters."""
    return id_in(http.scope, prefix)


def id_in(scope: Scope, prefix: str) -> str:
    """As `request_id_of`."""
    state = scope["state"]
    if state[_KEY] is None:
        state[_KEY] = _draw(prefix)
    found: str = state[_KEY]
    return found


def name_request(http: Request, request_id: str) -> None:
    """Answer with this id where the client sent none, as its records have it."""
    if http.state.request_id is None:
        http.state.request_id = request_id


def _draw(prefix: str) -> str:
    return f"{prefix}{random.getrandbits(64):016x}"  # it tells requests apart, and is no secret
