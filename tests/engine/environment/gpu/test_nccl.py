from __future__ import annotations

import pytest

from engine.environment.check import CheckStatus
from engine.environment.gpu.nccl import judge_all_reduce
from engine.environment.gpu.probing import AllReduceReading


def test_the_right_sum_passes_with_the_bandwidth() -> None:
    finding = judge_all_reduce(AllReduceReading(8, is_right=True, bus_bytes_per_s=370e9))
    assert finding.status is CheckStatus.PASS
    assert finding.observed == "all-reduce over 8 GPUs gives the right sum, 370 GB/s bus bandwidth"


def test_a_wrong_sum_fails() -> None:
    finding = judge_all_reduce(AllReduceReading(2, is_right=False, bus_bytes_per_s=1e9))
    assert finding.status is CheckStatus.FAIL
    assert "NCCL_P2P_DISABLE=1" in (finding.remedy or "")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        ("no answer within 150 s", "NCCL_DEBUG=INFO"),
        ("Error while creating shared memory segment /dev/shm/nccl", "--shm-size"),
    ],
)
def test_an_error_fails_whether_of_all_or_of_one(error: str, words: str) -> None:
    for reading in (AllReduceReading(2, error=error), AllReduceReading(2, errors={1: error})):
        finding = judge_all_reduce(reading)
        assert finding.status is CheckStatus.FAIL
        assert error in finding.observed
        assert words in (finding.remedy or "")
    assert "rank 1: " in judge_all_reduce(AllReduceReading(2, errors={1: error})).observed
