"""Several answers to one HTTP request: begun together, read together, ended together."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import ExitStack

from fastapi import Request as HttpRequest

from engine.api.streaming import Answer, collect
from engine.gateway import SharedStream
from engine.inference.outputs import OutputStream
from engine.inference.request import Event, Finished, Request
from engine.scheduling.quotas import Serving

logger = logging.getLogger(__name__)

# A slow reader is waited for here, so that its events pile up in the streams, which bound them.
_MAX_UNREAD = 64


class Choices:
    """The streams of one HTTP request, in the order of its choices."""

    def __init__(self, streams: Sequence[OutputStream]) -> None:
        self.streams = tuple(streams)

    @classmethod
    def begin(cls, serving: Serving, requests: Iterable[Request]) -> Choices:
        """Queue all requests, or none of them: raises what `Engine.stream` raises. It tokenizes, so it takes its
        time: not for the event loop's thread."""
        streams: list[OutputStream] = []
        with ExitStack() as begun:
            for request in requests:
                streams.append(serving.stream(request))
                begun.callback(streams[-1].close)
            begun.pop_all()
        return cls(streams)

    @property
    def are_kept(self) -> bool:
        """Whether all of them come from the response cache, and so are there already."""
        return all(isinstance(one, SharedStream) and one.is_hit and one.finished for one in self.streams)

    def close(self) -> None:
        """Cancel what has not ended."""
        for stream in self.streams:
            stream.close()

    async def collect(self, http: HttpRequest) -> tuple[Answer, ...]:
        """Wait for all answers; raises what `streaming.collect` raises, and then the others are cancelled."""
        try:
            return tuple(await asyncio.gather(*(collect(stream, http) for stream in self.streams)))
        finally:
            self.close()

    async def events(self) -> AsyncIterator[tuple[int, Event]]:
        """The events of all streams as they come, each with the index of its choice. Ends after the last `Finished`,
        or with what a stream raised; closing it before cancels the requests."""
        arrived: asyncio.Queue[tuple[int, Event | Exception]] = asyncio.Queue(_MAX_UNREAD)

        async def pass_on(index: int, stream: OutputStream) -> None:
            try:
                async for event in stream:
                    await arrived.put((index, event))
            except Exception as error:
                logger.exception("the answer of %s broke off", stream.request_id)
                await arrived.put((index, error))

        tasks = [asyncio.create_task(pass_on(index, stream)) for index, stream in enumerate(self.streams)]
        num_left = len(tasks)
        try:
            while num_left:
                index, event = await arrived.get()
                if isinstance(event, Exception):
                    raise event
                num_left -= isinstance(event, Finished)
                yield index, event
        finally:
            self.close()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
