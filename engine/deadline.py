"""Calls with an end: what does not come back in time is left behind, and keeps no process from ending."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from queue import Empty, SimpleQueue
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def call_within(limit_s: float, call: Callable[[], R]) -> R:
    """What `call` gives or raises, if it does within `limit_s`. For calls that take no time limit themselves, like the
    resolution of a name.

    Raises:
        TimeoutError: it did not.
    """
    return map_within(limit_s, lambda _: call(), (None,), 1)[0]


def map_within(limit_s: float, call: Callable[[T], R], items: Iterable[T], num_at_once: int) -> tuple[R, ...]:
    """`call` upon each item, `num_at_once` of them at a time; in the order of the items.

    The threads are daemons, as those of a pool are joined when the process ends. After the first error, or the end of
    the time, no further item is begun.

    Raises:
        TimeoutError: not all ended within `limit_s`; and whatever `call` raises first.
    """
    deadline_s = time.monotonic() + limit_s
    todo = list(enumerate(items))
    outcomes: SimpleQueue[tuple[int, R | None, BaseException | None]] = SimpleQueue()
    pending, lock, is_over = iter(todo), threading.Lock(), threading.Event()

    def work() -> None:
        while not is_over.is_set():
            with lock:
                index, item = next(pending, (None, None))
            if index is None:
                return
            try:
                outcomes.put((index, call(item), None))  # type: ignore[arg-type]  # there is an item with each index
            except BaseException as error:  # noqa: BLE001 - raised by the caller's thread
                outcomes.put((index, None, error))

    try:
        for _ in range(min(num_at_once, len(todo))):
            threading.Thread(target=work, name="within", daemon=True).start()
        return _collect(outcomes, len(todo), deadline_s, limit_s)
    finally:
        is_over.set()


def _collect(
    outcomes: SimpleQueue[tuple[int, R | None, BaseException | None]], num_items: int, deadline_s: float, limit_s: float
) -> tuple[R, ...]:
    results: dict[int, R] = {}
    for _ in range(num_items):
        try:
            index, result, error = outcomes.get(timeout=max(0.0, deadline_s - time.monotonic()))
        except Empty:
            raise TimeoutError(f"{len(results)} of {num_items} calls ended within {limit_s:g} s") from None
        if error is not None:
            raise error
        results[index] = result  # type: ignore[assignment]  # there is a result where there is no error
    return tuple(results[index] for index in range(num_items))
