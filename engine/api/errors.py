"""Errors in the shape that OpenAI's clients read: `{"error": {message, type, param, code}}`."""

from __future__ import annotations

import logging
import math
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from engine.errors import AuthenticationError, ConsoleError

logger = logging.getLogger(__name__)


def error_body(message: str, code: str, status: int, param: str | None = None) -> dict[str, Any]:
    """The body; `type` follows from the status, as OpenAI has it."""
    kind = "invalid_request_error" if status < 500 else "server_error"
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def console_error_body(error: ConsoleError) -> dict[str, Any]:
    """The body of one of our own errors."""
    return error_body(str(error), error.code, error.status, getattr(error, "param", None))


def error_headers(error: ConsoleError) -> dict[str, str]:
    """`Retry-After` in whole seconds, one at least, where the error says that another try may go better; how to
    authenticate where that lacks; and what the error itself has for them."""
    headers = dict(error.headers)
    if error.retry_after_s is not None:
        headers["retry-after"] = str(max(1, math.ceil(error.retry_after_s)))
    if isinstance(error, AuthenticationError):
        headers["www-authenticate"] = "Bearer"
    return headers


def console_error_response(error: ConsoleError) -> JSONResponse:
    """The whole answer to one of our own errors."""
    return JSONResponse(console_error_body(error), error.status, error_headers(error))


def add_error_handlers(app: FastAPI) -> None:
    """Answer every error of the API in one shape."""

    @app.exception_handler(ConsoleError)
    async def _console(_: Request, error: ConsoleError) -> JSONResponse:
        return console_error_response(error)

    @app.exception_handler(RequestValidationError)
    async def _validation(_: Request, error: RequestValidationError) -> JSONResponse:
        param, message = _explain(error)
        return JSONResponse(error_body(message, "invalid_request", 400, param), 400)

    @app.exception_handler(HTTPException)
    async def _http(_: Request, error: HTTPException) -> JSONResponse:
        body = error_body(str(error.detail), "http_error", error.status_code)
        return JSONResponse(body, error.status_code, error.headers)

    @app.exception_handler(Exception)
    async def _unforeseen(request: Request, error: Exception) -> JSONResponse:
        logger.error("%s %s failed", request.method, request.url.path, exc_info=error)
        return JSONResponse(error_body("the server failed; its log has the reason", "internal_error", 500), 500)


def _explain(error: RequestValidationError) -> tuple[str | None, str]:
    """The field's name and a sentence, from the first of pydantic's findings."""
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        return None, f"the body is not valid JSON: {first['ctx']['error']}"
    path = [str(part) for part in first["loc"] if part != "body"]
    name = ".".join(path) or None
    if first["type"] == "extra_forbidden":
        return name, f"{name} is not supported by this server: leave it out"
    return name, f"{name or 'the body'}: {first['msg']}"
