"""What went wrong with a remote server, as one of our errors, with the server's own words."""

from __future__ import annotations

import json
import re
import socket
from typing import Any

import httpx2

from engine.errors import ConsoleError, ContextLengthError, InstanceNotReadyError, InvalidRequestError, QueueFullError

_LONGEST_MESSAGE = 500
_REFUSALS = frozenset({400, 413, 415, 422})


class RemoteError(InstanceNotReadyError):
    """A remote instance cannot be reached, failed, or answered nonsense. It says something about the instance, and
    the request may succeed elsewhere."""

    code = "remote_failed"


def explain_break(error: Exception, name: str, silence_s: float) -> RemoteError:
    """What happened to the connection."""
    if isinstance(error, httpx2.SSEError):
        return RemoteError(f"{name} answered with something that is no event stream ({error}): check its base URL")
    if isinstance(error, httpx2.ReadTimeout):
        return RemoteError(f"{name} sent nothing for {silence_s:g} s: it may be overloaded or hung; look at its log")
    if isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout | httpx2.ProxyError):
        return RemoteError(f"{name} cannot be reached ({_cause(error)}): check that it is up, and its base URL")
    return RemoteError(f"the connection to {name} broke ({_cause(error)}): send the request again")


def _cause(error: BaseException) -> str:
    """The system's own words, which name no address with a password in it."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, socket.gaierror):
            return "its name cannot be resolved"
        if isinstance(cause, ConnectionRefusedError):
            return "connection refused"
        if isinstance(cause, OSError) and cause.strerror and "multiple" not in cause.strerror.lower():
            return cause.strerror
        cause = cause.__cause__ or cause.__context__
    return "no answer in time" if isinstance(error, httpx2.TimeoutException) else type(error).__name__


def explain_status(status: int, content: bytes, name: str, key: str | None) -> ConsoleError:
    """What a status other than success means. What the client did wrong stays the client's, everything else is the
    instance's. The key does not appear, even where the server repeats it."""
    body = _error_of(content)
    said = _said(body, content, key)
    if status in _REFUSALS:
        param = body.get("param")
        kind = ContextLengthError if body.get("code") == ContextLengthError.code else InvalidRequestError
        return kind(f"{name} refuses the request ({status}): {said}", param if isinstance(param, str) else None)
    if status == 429:
        return QueueFullError(f"{name} has too many requests (429): {said}")
    if status in (401, 403):
        return RemoteError(f"{name} does not accept its key ({status}): {said}; correct the key on the serving page")
    if status == 404:
        return RemoteError(f"{name} has no such model or route ({status}): {said}; correct its base URL and model")
    return RemoteError(f"{name} failed ({status}): {said}")


def explain_event(error: Any, name: str, key: str | None) -> RemoteError:
    """An error that came in the middle of an answer."""
    body = error if isinstance(error, dict) else {"message": str(error)}
    return RemoteError(f"{name} broke off: {_said(body, b'', key)}")


def _error_of(content: bytes) -> dict[str, Any]:
    """OpenAI's shape is {"error": {...}}; vLLM also answers the inner object alone, FastAPI `detail`."""
    try:
        data = json.loads(content)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(data, dict):
        return {}
    inner = data.get("error", data)
    return inner if isinstance(inner, dict) else {"message": str(inner)}


def _said(body: dict[str, Any], content: bytes, key: str | None) -> str:
    text = str(body.get("message") or body.get("detail") or "") or content[:_LONGEST_MESSAGE].decode(errors="replace")
    if key:
        text = text.replace(key, "(hidden)")
    text = re.sub(r"[\s\x00-\x1f\x7f]+", " ", text).strip().rstrip(".")
    return text[:_LONGEST_MESSAGE] or "it gives no reason"
