"""Responses of this server: those under way in the background, and those in the store."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from fastapi.concurrency import run_in_threadpool

from engine.api.response_writer import LIVE, ResponseWriter
from engine.errors import InvalidRequestError, ResponseNotFoundError, StoreError
from engine.inference.outputs import OutputStream
from engine.inference.request import Delta, Finished
from engine.state.responses import ResponseStore, StoredResponse

logger = logging.getLogger(__name__)

# A conversation has this many responses at most; each adds its input and its answer to the prompt.
MAX_CHAIN = 1000


class _Run(NamedTuple):
    stream: OutputStream
    writer: ResponseWriter
    task: asyncio.Task[None]


class ResponseRuns:
    """Owns the tasks of background responses. All methods but `close` belong to the server's event loop or to a thread
    that it started."""

    def __init__(self, store: ResponseStore) -> None:
        self.store = store
        self._running: dict[str, _Run] = {}

    def earlier_items(self, response_id: str | None, key_id: str | None) -> list[dict[str, Any]]:
        """Input and output of a response and of those before it, oldest first.

        Raises:
            InvalidRequestError: one of them is not stored, or not complete yet.
        """
        chain: list[StoredResponse] = []
        while response_id is not None:
            if len(chain) == MAX_CHAIN:
                raise InvalidRequestError(
                    f"the conversation has more than {MAX_CHAIN} responses: start a new one", "previous_response_id"
                )
            found = self.store.get(response_id, key_id)
            if found is None:
                raise InvalidRequestError(
                    f"previous_response_id leads to {response_id!r}, which is not stored: send its items as input",
                    "previous_response_id",
                )
            if found.response["status"] in LIVE:
                raise InvalidRequestError(
                    f"previous_response_id leads to {response_id!r}, which is {found.response['status']}: wait for it",
                    "previous_response_id",
                )
            chain.append(found)
            response_id = found.response["previous_response_id"]
        return [item for stored in reversed(chain) for item in (*stored.input_items, *stored.response["output"])]

    def start(
        self, stream: OutputStream, writer: ResponseWriter, items: list[dict[str, Any]], on_end: Callable[[], None]
    ) -> None:
        """Go on with a response that nobody waits for, and call `on_end` when it has ended."""
        task = asyncio.create_task(self._run(stream, writer, items, on_end), name=f"response:{stream.request_id}")
        self._running[stream.request_id] = _Run(stream, writer, task)

    def get(self, response_id: str, key_id: str | None) -> StoredResponse:
        """The response as it stands. One that was under way when its server stopped has failed.

        Raises:
            ResponseNotFoundError: this key has none by that id.
        """
        running = self._running.get(response_id)  # before the store is read: what ends meanwhile has its end there
        found = self.store.get(response_id, key_id)
        if found is None:
            raise ResponseNotFoundError(f"there is no response {response_id!r}: it was deleted, or never stored")
        if found.response["status"] not in LIVE:
            return found
        if running is not None:
            return StoredResponse(dict(running.writer.response), found.input_items)
        error = {"code": "server_error", "message": "the server stopped before the response was complete"}
        return StoredResponse({**found.response, "status": "failed", "error": error}, found.input_items)

    async def cancel(self, response_id: str) -> None:
        """End a response that is under way, and return when it has; nothing happens where it is not."""
        running = self._running.get(response_id)
        if running is not None:
            running.stream.close()
            await asyncio.shield(running.task)

    def close(self) -> None:
        """Cancel what runs, from any thread."""
        for running in tuple(self._running.values()):
            running.stream.close()

    async def _run(
        self, stream: OutputStream, writer: ResponseWriter, items: list[dict[str, Any]], on_end: Callable[[], None]
    ) -> None:
        try:
            async for event in stream:
                for _ in events_of(writer, event):
                    pass
            await run_in_threadpool(self.store.replace, StoredResponse(writer.response, tuple(items)))
        except StoreError:
            logger.exception("the response %s is lost", stream.request_id)
        finally:
            stream.close()
            self._running.pop(stream.request_id, None)
            on_end()


def events_of(writer: ResponseWriter, event: Delta | Finished) -> Iterator[dict[str, Any]]:
    """What the writer makes of one event of the engine's."""
    return writer.finish(event) if isinstance(event, Finished) else writer.feed(event)
