from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import aclosing, closing
from typing import cast

import pytest

from engine.inference.outputs import MAX_UNREAD_EVENTS, MAX_UNREAD_TOKENS, OutputStream, merge
from engine.inference.request import Delta, Event, Finished, FinishReason, Timing, TokenInfo
from engine.inference.tools import CallPiece
from tests.fakes import wait_until

_END = Finished("req", FinishReason.STOP, 1, 2, 0, Timing(0.0, 0.0))


class Closings:
    """Counts how often the stream asked to be cancelled."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> None:
        self.count += 1


@pytest.fixture
def closings() -> Closings:
    return Closings()


@pytest.fixture
def stream(closings: Closings) -> OutputStream:
    return OutputStream("req", 0.0, closings)


def _feed(stream: OutputStream, *texts: str) -> None:
    for text in texts:
        stream.put(Delta(text))
    stream.put(_END)


async def _collect(stream: OutputStream) -> list[Event]:
    return [event async for event in stream]


def test_iterator_gives_all_events_and_ends(stream: OutputStream, closings: Closings) -> None:
    _feed(stream, "a", "b")
    assert list(stream) == [Delta("a"), Delta("b"), _END]
    assert stream.finished == _END
    assert closings.count == 0


def test_iterator_waits_for_another_thread(stream: OutputStream) -> None:
    thread = threading.Timer(0.02, _feed, (stream, "a"))
    thread.start()
    assert list(stream) == [Delta("a"), _END]
    thread.join()


def test_async_iterator_waits_for_another_thread(stream: OutputStream) -> None:
    thread = threading.Timer(0.02, _feed, (stream, "a"))
    thread.start()
    assert asyncio.run(asyncio.wait_for(_collect(stream), 5)) == [Delta("a"), _END]
    thread.join()


def test_async_iterator_takes_what_was_there_before(stream: OutputStream) -> None:
    _feed(stream, "a", "b")
    assert asyncio.run(asyncio.wait_for(_collect(stream), 5)) == [Delta("a"), Delta("b"), _END]


def test_a_stream_read_to_its_end_is_empty_and_does_not_hang(stream: OutputStream) -> None:
    _feed(stream, "a")
    list(stream)
    assert list(stream) == []
    assert asyncio.run(asyncio.wait_for(_collect(stream), 5)) == []


def test_closing_the_iterator_cancels(stream: OutputStream, closings: Closings) -> None:
    stream.put(Delta("a"))
    with closing(cast("closing[Iterator[Event]]", iter(stream))) as events:  # type: ignore[type-var]
        assert next(cast(Iterator[Event], events)) == Delta("a")
        assert closings.count == 0
    assert closings.count == 1


def test_closing_the_async_iterator_cancels(stream: OutputStream, closings: Closings) -> None:
    stream.put(Delta("a"))

    async def read_one() -> Event:
        async with aclosing(stream.__aiter__()) as events:  # type: ignore[type-var]
            return await anext(events)

    assert asyncio.run(asyncio.wait_for(read_one(), 5)) == Delta("a")
    assert closings.count == 1


def test_cancelling_the_task_that_reads_cancels(stream: OutputStream, closings: Closings) -> None:
    async def leave() -> None:
        task = asyncio.create_task(_collect(stream))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(asyncio.wait_for(leave(), 5))
    assert closings.count == 1


def test_closing_after_the_end_cancels_nothing(stream: OutputStream, closings: Closings) -> None:
    _feed(stream, "a")
    stream.close()
    assert closings.count == 0


def test_nothing_is_accepted_after_the_end(stream: OutputStream) -> None:
    _feed(stream, "a")
    stream.put(Delta("late"))
    assert stream.poll() == [Delta("a"), _END]


def test_poll_does_not_wait(stream: OutputStream) -> None:
    assert stream.poll() == []
    stream.put(Delta("a"))
    assert stream.poll() == [Delta("a")]
    assert stream.poll() == []


def test_wait_is_bounded(stream: OutputStream) -> None:
    assert stream.wait(0.001) is False
    stream.put(Delta("a"))
    assert stream.wait(0.001) is True


def test_a_reader_whose_loop_is_gone_does_not_hurt_the_worker(stream: OutputStream) -> None:
    stream.put(Delta("a"))

    async def read_one() -> None:
        await anext(stream.__aiter__())

    asyncio.run(asyncio.wait_for(read_one(), 5))
    _feed(stream, "b")
    assert stream.finished == _END


def _tokens(first: int, number: int) -> list[Delta]:
    return [Delta(f"{index} ", (TokenInfo(index, ""),)) for index in range(first, first + number)]


def test_what_is_left_unread_is_merged(stream: OutputStream, closings: Closings) -> None:
    deltas = _tokens(0, 3 * MAX_UNREAD_EVENTS)
    for delta in deltas:
        stream.put(delta)
    stream.put(_END)
    events = stream.poll()
    assert len(events) <= MAX_UNREAD_EVENTS
    assert events.pop() is _END
    assert merge(event for event in events if isinstance(event, Delta)) == merge(deltas)
    assert (stream.overrun, closings.count) == (None, 0)


def test_merging_keeps_text_tokens_and_calls() -> None:
    calls = (CallPiece(0, "", "call-0", "look"), CallPiece(0, "{}"))
    tokens = (TokenInfo(1, "a"), TokenInfo(2, "b"))
    deltas = [Delta("a", tokens[:1], calls[:1]), Delta("b", tokens[1:]), Delta("", (), calls[1:])]
    assert merge(deltas) == Delta("ab", tokens, calls)


def test_a_reader_that_does_not_read_is_cancelled_with_a_reason(stream: OutputStream, closings: Closings) -> None:
    for delta in _tokens(0, MAX_UNREAD_TOKENS):
        stream.put(delta)
    assert (stream.overrun, closings.count) == (None, 0)
    stream.put(Delta("more", (TokenInfo(0, ""),)))
    assert stream.overrun == "16,384 tokens were left unread: read the answer faster, or ask for a shorter one"
    assert closings.count == 1


def test_reading_makes_room_again(stream: OutputStream) -> None:
    for delta in _tokens(0, MAX_UNREAD_TOKENS):
        stream.put(delta)
    stream.poll()
    for delta in _tokens(0, MAX_UNREAD_TOKENS):
        stream.put(delta)
    assert stream.overrun is None


def test_a_slow_reader_holds_nobody(stream: OutputStream) -> None:
    done = threading.Event()

    def work() -> None:
        _feed(stream, *(str(index) for index in range(10_000)))
        done.set()

    threading.Thread(target=work).start()
    events = iter(stream)
    first = next(events)  # of several words, where they came before it was read
    wait_until(done.is_set)
    texts = [event.text for event in (first, *events) if isinstance(event, Delta)]
    assert "".join(texts) == "".join(map(str, range(10_000)))
