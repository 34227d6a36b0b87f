"""API keys: compared in constant time, never logged."""

from __future__ import annotations

import hmac

from fastapi import Request

from engine.api.provider import ConsoleOfServer
from engine.config import Settings
from engine.errors import AuthenticationError


def is_known_key(key: str, settings: Settings) -> bool:
    """Whether `key` is one of the configured ones. Every key is compared, so the time tells nothing."""
    given = key.encode()
    matches = [hmac.compare_digest(given, known.get_secret_value().encode()) for known in settings.api_keys]
    return any(matches)


async def require_key(http: Request, console: ConsoleOfServer) -> None:
    """Refuse a request without a known bearer key; without configured keys all requests pass.

    Raises:
        AuthenticationError: the header is missing or its key unknown.
    """
    if not console.settings.api_keys:
        return
    scheme, _, key = http.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not is_known_key(key.strip(), console.settings):
        raise AuthenticationError(
            "send a known key in the header `Authorization: Bearer KEY`; CONSOLE_API_KEYS has them"
        )
