from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence

import pytest

from engine.latency.writer import BatchWriter, WriterLimits

NEVER_S = 3_600.0
BY_HAND = WriterLimits(interval_s=NEVER_S, retry_s=NEVER_S, max_batch=10, max_pending=25)


class Disk:
    """Takes batches, or refuses them while `reason` is set."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.reason: str | None = None

    def write(self, batch: Sequence[int]) -> None:
        if self.reason is not None:
            raise OSError(self.reason)
        self.batches.append(list(batch))

    @property
    def items(self) -> list[int]:
        return [item for batch in self.batches for item in batch]


@pytest.fixture
def disk() -> Disk:
    return Disk()


@pytest.fixture
def open_writer(disk: Disk) -> Iterator[Callable[[WriterLimits], BatchWriter[int]]]:
    writers: list[BatchWriter[int]] = []

    def open_one(limits: WriterLimits) -> BatchWriter[int]:
        writers.append(BatchWriter(disk.write, name="test-writer", limits=limits))
        return writers[-1]

    yield open_one
    for writer in writers:
        writer.close()


Opener = Callable[[WriterLimits], BatchWriter[int]]


def _wait_until(condition: Callable[[], bool], timeout_s: float = 5.0) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, "it did not happen in time"
        time.sleep(0.005)


def test_flush_writes_in_order_and_in_batches(disk: Disk, open_writer: Opener) -> None:
    writer = open_writer(WriterLimits(interval_s=NEVER_S, max_batch=10))
    for item in range(9):
        writer.put(item)
    writer.flush()
    assert disk.batches == [list(range(9))]
    assert (writer.num_pending, writer.num_dropped, writer.error) == (0, 0, None)


def test_flush_of_nothing_writes_nothing(disk: Disk, open_writer: Opener) -> None:
    open_writer(BY_HAND).flush()
    assert disk.batches == []


def test_thread_writes_by_itself(disk: Disk, open_writer: Opener) -> None:
    open_writer(WriterLimits(interval_s=0.01)).put(1)
    _wait_until(lambda: disk.items == [1])


def test_full_batch_is_written_before_the_interval_ends(disk: Disk, open_writer: Opener) -> None:
    writer = open_writer(BY_HAND)
    for item in range(10):
        writer.put(item)
    _wait_until(lambda: disk.items == list(range(10)))


def test_failed_batch_is_kept_and_written_later(disk: Disk, open_writer: Opener) -> None:
    writer = open_writer(BY_HAND)
    disk.reason = "No space left on device"
    writer.put(1)
    writer.put(2)
    writer.flush()
    assert writer.error == "No space left on device"
    assert (disk.items, writer.num_pending) == ([], 2)
    disk.reason = None
    writer.put(3)
    writer.flush()
    assert writer.error is None
    assert disk.items == [1, 2, 3]


def test_thread_tries_again_by_itself(disk: Disk, open_writer: Opener) -> None:
    disk.reason = "No space left on device"
    writer = open_writer(WriterLimits(interval_s=0.01, retry_s=0.01))
    writer.put(1)
    _wait_until(lambda: writer.error is not None)
    disk.reason = None
    _wait_until(lambda: disk.items == [1] and writer.error is None)


def test_oldest_are_dropped_beyond_the_bound(disk: Disk, open_writer: Opener) -> None:
    writer = open_writer(BY_HAND)
    disk.reason = "No space left on device"
    writer.put(0)
    writer.flush()
    for item in range(1, 30):
        writer.put(item)
    assert (writer.num_pending, writer.num_dropped) == (25, 5)
    disk.reason = None
    writer.flush()
    assert disk.items == list(range(5, 30))


def test_close_writes_the_rest_and_drops_what_comes_after(disk: Disk, open_writer: Opener) -> None:
    writer = open_writer(BY_HAND)
    writer.put(1)
    writer.close()
    writer.close()
    writer.put(2)
    assert (disk.items, writer.num_dropped) == ([1], 1)


def test_close_counts_what_it_cannot_write(disk: Disk, open_writer: Opener, caplog: pytest.LogCaptureFixture) -> None:
    writer = open_writer(BY_HAND)
    disk.reason = "No space left on device"
    writer.put(1)
    writer.close()
    assert (writer.num_dropped, writer.num_pending) == (1, 0)
    assert "1 records are lost: No space left on device" in caplog.text


def test_many_threads_lose_nothing(disk: Disk, open_writer: Opener) -> None:
    writer = open_writer(WriterLimits(interval_s=0.001, max_batch=50))

    def put_all(items: Sequence[int]) -> None:
        for item in items:
            writer.put(item)

    threads = [
        threading.Thread(target=put_all, args=(range(start, start + 1_000),)) for start in range(0, 4_000, 1_000)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    writer.flush()
    assert sorted(disk.items) == list(range(4_000))


def test_put_costs_microseconds(open_writer: Opener) -> None:
    writer = open_writer(WriterLimits(interval_s=NEVER_S))
    start_s = time.perf_counter()
    for item in range(5_000):
        writer.put(item)
    assert (time.perf_counter() - start_s) / 5_000 < 100e-6
