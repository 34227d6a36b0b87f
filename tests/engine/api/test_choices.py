from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from engine.api.choices import Choices
from engine.inference.outputs import OutputStream
from engine.inference.request import Delta, Event


class _Broken(OutputStream):
    """Raises after its first event."""

    async def __aiter__(self) -> AsyncIterator[Event]:
        yield Delta("Hi", ())
        raise ZeroDivisionError("a fault of ours")


def test_a_stream_that_raises_ends_the_events() -> None:
    """Whoever reads must not wait for ever; and the other choice is cancelled."""
    closed: list[str] = []
    other = OutputStream("req-1", 0.0, lambda: closed.append("req-1"))

    async def read() -> None:
        async for _ in Choices([_Broken("req-0", 0.0, lambda: None), other]).events():
            pass

    with pytest.raises(ZeroDivisionError):
        asyncio.run(asyncio.wait_for(read(), 10))
    assert closed
