"""Calls that end in time, or are left behind."""

from __future__ import annotations

import subprocess
import sys
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.deadline import call_within, map_within


def test_a_call_gives_its_result_or_its_error() -> None:
    assert call_within(5, lambda: 3) == 3
    with pytest.raises(ZeroDivisionError):
        call_within(5, lambda: 1 // 0)


def test_a_call_that_hangs_is_left_behind() -> None:
    released = threading.Event()
    began_s = time.monotonic()
    with pytest.raises(TimeoutError, match=r"0 of 1 calls ended within 0\.05 s"):
        call_within(0.05, lambda: released.wait(20))
    assert time.monotonic() - began_s < 10
    released.set()


@given(items=st.lists(st.integers(), max_size=20), num_at_once=st.integers(1, 4))
def test_results_come_in_the_order_of_the_items(items: list[int], num_at_once: int) -> None:
    assert map_within(5, lambda item: item + 1, items, num_at_once) == tuple(item + 1 for item in items)


def test_no_more_run_at_once_than_asked_for() -> None:
    lock, running, most = threading.Lock(), 0, 0

    def call(_: int) -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.01)
        with lock:
            running -= 1

    map_within(5, call, range(9), 3)
    assert most == 3


def test_after_the_end_nothing_is_begun() -> None:
    begun = []

    def call(item: int) -> None:
        begun.append(item)
        time.sleep(0.1)

    with pytest.raises(TimeoutError, match="0 of 9 calls"):
        map_within(0.02, call, range(9), 1)
    time.sleep(0.2)
    assert begun == [0]


def test_a_call_left_behind_does_not_keep_the_process() -> None:
    script = "import time\nfrom engine.deadline import call_within\ntry: call_within(0.05, lambda: time.sleep(200))\n"
    script += "except TimeoutError: print('over')"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout == "over\n"
