from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.weights.transfer import Speedometer, TransferState, describe_duration, describe_size


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (TransferState(1_200_000_000, 3_400_000_000, 120e6), "downloading 1.2 of 3.4 GB, 120 MB/s, 18 s left"),
        (TransferState(0, 3_400_000_000), "downloading 0 of 3.4 GB"),
        (TransferState(500, 34_000_000, 1500.0), "downloading 0.0 of 34 MB, 1.5 kB/s, 6.3 h left"),
        (TransferState(5_000_000, None, 1e6), "downloading 5 MB, 1 MB/s"),
        (TransferState(20, 20, 5.0), "downloading 20 of 20 B, storing"),
        (TransferState(10, 20, 0.0), "downloading 10 of 20 B, 0 B/s"),
        (TransferState(10, 20, 5.0, "connection lost"), "downloading 10 of 20 B, connection lost"),
    ],
)
def test_the_sentence(state: TransferState, words: str) -> None:
    assert str(state) == words


@given(st.integers(0, 2**60), st.integers(0, 2**60) | st.none(), st.floats(0, 1e12) | st.none())
def test_the_fraction_is_one(done_bytes: int, total_bytes: int | None, speed: float | None) -> None:
    state = TransferState(done_bytes, total_bytes, speed)
    assert str(state).startswith("downloading ")
    assert state.fraction is None or 0 <= state.fraction <= 1
    assert state.left_s is None or state.left_s >= 0


def test_speed_is_that_of_the_last_seconds() -> None:
    meter = Speedometer()
    assert meter.read(0.0, 0) is None
    assert meter.read(0.4, 100) is None
    assert meter.read(1.0, 1_000) == 1_000
    for second in range(2, 20):
        speed = meter.read(float(second), 1_000 + (second - 1) * 10)
    assert speed == pytest.approx(10, rel=0.01)
    assert meter.read(20.0, 0) == 0, "a restart is no negative speed"


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.1, "1 s"), (18.2, "18 s"), (99, "99 s"), (170, "3 min"), (9000, "2.5 h")]
)
def test_durations(seconds: float, words: str) -> None:
    assert describe_duration(seconds) == words


def test_sizes() -> None:
    assert [describe_size(size) for size in (0, 999, 1_500, 34e6, 3.44e9)] == [
        "0 B",
        "999 B",
        "1.5 kB",
        "34 MB",
        "3.4 GB",
    ]
