"""One request to a remote instance: sent on, read event by event, ended once whatever happens."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass, replace

from engine.clock import Clock
from engine.errors import ConsoleError
from engine.inference.outputs import OutputStream
from engine.inference.request import Finished, FinishReason, Request, Timing
from engine.remote.body import to_body
from engine.remote.chunks import ChunkReader
from engine.remote.server import RemoteServer
from engine.remote.trouble import RemoteError

logger = logging.getLogger(__name__)

_DRAIN_S = 0.05


@dataclass(frozen=True, slots=True)
class RemoteFinished(Finished):
    """The last event of a remote answer. `cause` is the error itself where the reason is `error`."""

    cause: ConsoleError | None = None

    def failure(self) -> ConsoleError | None:
        """The cause, so that what the remote refused as wrong is not told as a failure of the server."""
        return self.cause or Finished.failure(self)


async def _drain(events: AsyncIterator[str]) -> None:
    """Read what little comes after the end, so that the connection can be used again."""
    with suppress(TimeoutError):
        async with asyncio.timeout(_DRAIN_S):
            async for _ in events:
                pass


class RemoteAnswer:
    """Owned by the loop's thread once begun; `stream` is for whoever asked."""

    def __init__(
        self, request: Request, timing: Timing, clock: Clock, reader: ChunkReader, on_close: Callable[[], None]
    ) -> None:
        self.request = request
        self.timing = timing
        self.stream = OutputStream(request.request_id, timing.received_at_s, on_close)
        self._clock = clock
        self._reader = reader
        self._seed = request.sampling.seed_or_drawn()

    @property
    def num_output_tokens(self) -> int:
        return self._reader.num_output_tokens

    async def run(self, server: RemoteServer, model: str, timeout_s: float) -> RemoteFinished:
        """Ask, and return the last event, which is not put on the stream yet. `timeout_s` counts from receipt."""
        left_s = timeout_s - (self._clock.monotonic() - self.timing.received_s)
        try:
            async with asyncio.timeout(left_s):
                await self._read(server, model)
        except TimeoutError:
            limit_s = round(timeout_s, 2)
            return self.end(FinishReason.DEADLINE, f"the request did not end within {limit_s:g} s: allow it more")
        except ConsoleError as error:
            return self.end(FinishReason.ERROR, str(error), error)
        except Exception as error:
            logger.exception("request %s to %s failed", self.request.request_id, server.name)
            text = f"the request to {server.name} failed ({type(error).__name__}): the log has more"
            return self.end(FinishReason.ERROR, text, RemoteError(text))
        return self.end(self._reader.reason or FinishReason.STOP)

    async def _read(self, server: RemoteServer, model: str) -> None:
        path, body = to_body(self.request, model, self._seed)
        async with server.answer(path, body) as events:
            async for data in events:
                delta = self._reader.feed(data)
                if delta is not None:
                    self.timing = self.timing.with_token(self._clock.monotonic())
                    self.stream.put(delta)
                if self._reader.is_done:
                    await _drain(events)
                    return
        raise RemoteError(f"{server.name} broke off in the middle of the answer: send the request again")

    def end(self, reason: FinishReason, error: str | None = None, cause: ConsoleError | None = None) -> RemoteFinished:
        """The last event of this answer."""
        self.timing = replace(self.timing, finished_s=self._clock.monotonic())
        return RemoteFinished(
            request_id=self.request.request_id,
            reason=reason,
            num_prompt_tokens=self._reader.num_prompt_tokens,
            num_output_tokens=self._reader.num_output_tokens,
            seed=self._seed,
            timing=self.timing,
            error=error,
            cause=cause,
        )
