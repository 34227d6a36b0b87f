from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing

import pytest

from engine.gateway.stream import RoutedStream, Sent
from engine.inference.outputs import OutputStream
from engine.inference.request import Delta, Event, Finished, FinishReason, Timing


def finished(reason: FinishReason = FinishReason.STOP) -> Finished:
    return Finished("r", reason, 1, 1, 0, Timing(0.0, 0.0), "it broke" if reason is FinishReason.ERROR else None)


FAILED, DONE = finished(FinishReason.ERROR), finished()


class Source:
    """Streams that tests fill; notes what is closed and what is told."""

    def __init__(self) -> None:
        self.closed: list[str] = []
        self.told: list[tuple[str, Finished | None]] = []
        self.next: list[Sent] = []

    def sent(self, name: str, *events: Event) -> Sent:
        stream = OutputStream("r", 0.0, lambda: self.closed.append(name))
        for event in events:
            stream.put(event)
        return Sent(name, stream, False)

    def open(self, first: Sent) -> RoutedStream:
        def retry(sent: Sent, end: Finished) -> Sent | None:
            return self.next.pop(0) if self.next else None

        return RoutedStream(first, retry, lambda sent, end: self.told.append((sent.instance, end)))


@pytest.fixture
def source() -> Source:
    return Source()


def read_by_iterator(stream: RoutedStream) -> list[Event]:
    return list(stream)


def read_by_polling(stream: RoutedStream) -> list[Event]:
    events: list[Event] = []
    while stream.finished is None or not events or events[-1] is not stream.finished:
        assert stream.wait(10)
        events += stream.poll()
    return events


def read_by_loop(stream: RoutedStream) -> list[Event]:
    async def read() -> list[Event]:
        return [event async for event in stream]

    return asyncio.run(asyncio.wait_for(read(), 10))


READERS = pytest.mark.parametrize("read", [read_by_iterator, read_by_polling, read_by_loop])
Read = Callable[[RoutedStream], list[Event]]


@READERS
def test_an_answer_passes_unchanged(source: Source, read: Read) -> None:
    events = [Delta("a"), Delta("b"), DONE]
    stream = source.open(source.sent("one", *events))
    assert read(stream) == events
    assert (stream.finished, stream.instance) == (DONE, "one")
    assert source.told == [("one", DONE)]
    stream.close()
    assert source.closed == []


@READERS
def test_a_failure_before_the_first_word_is_made_good_by_the_next(source: Source, read: Read) -> None:
    source.next = [source.sent("two", FAILED), source.sent("three", Delta("c"), DONE)]
    stream = source.open(source.sent("one", FAILED))
    assert stream.finished is None
    assert read(stream) == [Delta("c"), DONE]
    assert stream.instance == "three"
    assert source.told == [("one", FAILED), ("two", FAILED), ("three", DONE)]


@READERS
def test_a_failure_after_the_first_word_stands(source: Source, read: Read) -> None:
    source.next = [source.sent("two", Delta("c"), DONE)]
    stream = source.open(source.sent("one", Delta("a"), FAILED))
    assert read(stream) == [Delta("a"), FAILED]
    assert source.told == [("one", FAILED)]


@READERS
def test_the_last_failure_is_told_when_nobody_is_left(source: Source, read: Read) -> None:
    source.next = [source.sent("two", FAILED)]
    assert read(source.open(source.sent("one", FAILED))) == [FAILED]
    assert [name for name, _ in source.told] == ["one", "two"]


def test_closing_cancels_and_says_that_nobody_waited(source: Source) -> None:
    source.next = [source.sent("two", DONE)]
    sent = source.sent("one", Delta("a"))
    stream = source.open(sent)
    stream.close()
    stream.close()
    assert source.closed == ["one", "one"]
    assert source.told == [("one", None)]
    sent.stream.put(finished(FinishReason.CANCELLED))
    *_, last = stream
    assert isinstance(last, Finished)
    assert last.reason is FinishReason.CANCELLED
    assert source.told == [("one", None)]


def test_a_closed_request_is_sent_nowhere_else(source: Source) -> None:
    source.next = [source.sent("two", DONE)]
    sent = source.sent("one")
    stream = source.open(sent)
    stream.close()
    sent.stream.put(FAILED)
    assert list(stream) == [FAILED]
    assert source.next


def test_one_that_ended_before_it_was_closed_counts_as_it_ended(source: Source) -> None:
    source.open(source.sent("one", Delta("a"), DONE)).close()
    assert source.told == [("one", DONE)]


def test_closing_while_the_next_is_being_asked_closes_that_too(source: Source) -> None:
    following = source.sent("two", Delta("c"))
    holder: list[RoutedStream] = []

    def retry(sent: Sent, end: Finished) -> Sent:
        holder[0].close()
        return following

    holder.append(
        RoutedStream(source.sent("one", FAILED), retry, lambda sent, end: source.told.append((sent.instance, end)))
    )
    assert holder[0].poll() == []
    assert source.closed == ["two"]
    assert source.told == [("one", FAILED), ("two", None)]


def test_a_loop_that_stops_reading_closes_it(source: Source) -> None:
    stream = source.open(source.sent("one", Delta("a")))

    async def read_one() -> Event:
        async with aclosing(stream.__aiter__()) as events:  # type: ignore[type-var]
            return await anext(events)

    assert asyncio.run(asyncio.wait_for(read_one(), 10)) == Delta("a")
    assert "one" in source.closed
    assert source.told == [("one", None)]
