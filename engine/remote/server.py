"""The one door to a remote server: its models, and answers as a stream of events, over httpx2.

Nothing is retried here, no redirect is followed, and every wait has an end.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx2

from engine.remote.chunks import ChunkReader
from engine.remote.spec import RemoteSpec
from engine.remote.trouble import RemoteError, explain_break, explain_status

CONNECT_TIMEOUT_S = 3.0
MAX_EVENT_BYTES = 1_048_576
_MAX_BODY_BYTES = 4_194_304
# Shorter than the five seconds after which uvicorn closes an idle connection, so that none is used as it closes.
_KEEP_ALIVE_S = 3.0


@dataclass(frozen=True, slots=True)
class ListedModel:
    """A model that a server offers. `context_length` where it says so, as vLLM does."""

    id: str
    context_length: int | None = None


class RemoteServer:
    """Connections to one server, for one event loop. The key leaves here in the header alone."""

    def __init__(self, spec: RemoteSpec, key: str | None) -> None:
        if key is not None and not (key.isascii() and key.isprintable() and " " not in key):
            raise RemoteError(f"the key of {spec.name} holds a character that no HTTP header can carry: set it again")
        self._spec = spec
        self._key = key
        headers = {"User-Agent": "autoglm-console"}
        if key is not None:
            headers["Authorization"] = f"Bearer {key}"
        self._client = httpx2.AsyncClient(
            headers=headers,
            timeout=httpx2.Timeout(spec.silence_s, connect=CONNECT_TIMEOUT_S),
            limits=httpx2.Limits(max_connections=spec.max_running + 4, keepalive_expiry=_KEEP_ALIVE_S),
        )

    @property
    def name(self) -> str:
        """What errors call it."""
        return self._spec.name

    def new_reader(self) -> ChunkReader:
        """What reads the events of one answer."""
        return ChunkReader(self._spec.name, self._key)

    async def close(self) -> None:
        """Close every connection."""
        await self._client.aclose()

    async def list_models(self) -> tuple[ListedModel, ...]:
        """What `GET /models` names.

        Raises:
            ConsoleError: it cannot be reached, refuses, or answers nonsense.
        """
        try:
            async with self._client.stream("GET", f"{self._spec.base_url}/models") as response:
                content = await _read(response)
        except (httpx2.TransportError, httpx2.DecodingError) as error:
            raise explain_break(error, self._spec.name, self._spec.silence_s) from error
        if response.status_code != 200:
            raise explain_status(response.status_code, content, self._spec.name, self._key)
        return _parse_models(content, self._spec.name)

    @asynccontextmanager
    async def answer(self, path: str, body: dict[str, Any]) -> AsyncIterator[AsyncIterator[str]]:
        """The data of each event that comes back. Leaving the block closes the connection unless all was read.

        Raises:
            ConsoleError: it cannot be reached, refuses, or the connection breaks, also while events are read.
        """
        try:
            async with self._client.stream("POST", f"{self._spec.base_url}{path}", json=body) as response:
                if response.status_code != 200:
                    content = await _read(response)
                    raise explain_status(response.status_code, content, self._spec.name, self._key)
                yield _data_of(httpx2.EventSource(response, MAX_EVENT_BYTES))
        except (httpx2.TransportError, httpx2.DecodingError) as error:
            raise explain_break(error, self._spec.name, self._spec.silence_s) from error


async def _data_of(source: httpx2.EventSource) -> AsyncIterator[str]:
    async for event in source:
        yield event.data


async def _read(response: httpx2.Response) -> bytes:
    """The body up to a bound; what is beyond it is cut off."""
    content = bytearray()
    async for chunk in response.aiter_bytes():
        content += chunk
        if len(content) > _MAX_BODY_BYTES:
            break
    return bytes(content)


def _parse_models(content: bytes, name: str) -> tuple[ListedModel, ...]:
    try:
        listed = json.loads(content)["data"]
        return tuple(ListedModel(str(item["id"]), _context_of(item)) for item in listed)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise RemoteError(
            f"{name} answers /models with something that is no list of models: check its base URL"
        ) from error


def _context_of(item: dict[str, Any]) -> int | None:
    length = item.get("max_model_len")
    return length if isinstance(length, int) and length > 0 else None
