from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.environment.check import CheckStatus
from engine.environment.gpu.container import Container
from engine.environment.gpu.devices import (
    capability,
    describe_gpu,
    dotted,
    expect_devices,
    find_misses,
    judge_devices,
    visible_gpus,
)
from engine.environment.profile import Bound, GpuProfile
from engine.telemetry.nvml import GpuInventory, GpuReading

GB = 10**9
ONE = Bound(require=1, recommend=None)
PROFILE = GpuProfile(
    count=ONE,
    memory_gb=Bound(require=22, recommend=40),
    compute_capability_min="7.5",
    dtypes=("float16", "bfloat16"),
)


def gpu(index: int, gb: float | None = 80, cc: tuple[int, int] | None = (9, 0), error: str | None = None) -> GpuReading:
    memory = None if gb is None else int(gb * GB)
    return GpuReading(
        index, f"GPU-{index}", "NVIDIA H100", compute_capability=cc, memory_total_bytes=memory, error=error
    )


def test_a_card_that_fits_passes_and_is_told() -> None:
    finding = judge_devices(GpuInventory((gpu(0),)), PROFILE)
    assert finding.status is CheckStatus.PASS
    assert finding.observed == "0: NVIDIA H100, 80.0 GB, compute capability 9.0"
    assert finding.facts == {
        "num_gpus": 1,
        "gpu0_name": "NVIDIA H100",
        "gpu0_uuid": "GPU-0",
        "gpu0_memory_total_bytes": 80 * GB,
    }


def test_no_gpu_skips_or_fails_by_the_profile() -> None:
    none = GpuInventory(reason="No driver.")
    assert judge_devices(none, GpuProfile()).status is CheckStatus.SKIP
    finding = judge_devices(none, PROFILE)
    assert (finding.status, finding.observed) == (CheckStatus.FAIL, "no GPU: No driver.")
    assert "cpu-laptop" in (finding.remedy or "")
    assert "--gpus all" in (judge_devices(none, PROFILE, Container.ENGINE).remedy or "")


def test_a_card_without_enough_of_anything_fails_and_says_what_it_misses() -> None:
    finding = judge_devices(GpuInventory((gpu(0, 16, (7, 0)),)), PROFILE)
    assert finding.status is CheckStatus.FAIL
    for words in (
        "0 of 1 GPU fit",
        "less than the 22 GB",
        "below the 7.5",
        "no bfloat16 (needs compute capability 8.0)",
    ):
        assert words in finding.observed
    assert "at least 22 GB" in (finding.remedy or "")


def test_a_card_that_does_not_fit_beside_one_that_does_warns() -> None:
    finding = judge_devices(GpuInventory((gpu(0, 4), gpu(1))), PROFILE)
    assert finding.status is CheckStatus.WARN
    assert "CUDA_VISIBLE_DEVICES=GPU-1`" in (finding.remedy or "")


def test_cards_that_cuda_does_not_see_are_not_judged() -> None:
    mixed = GpuInventory((gpu(0, 4), gpu(1)))
    seen = visible_gpus(mixed, "GPU-1")
    assert [card.index for card in seen.gpus] == [1]
    assert judge_devices(seen, PROFILE).status is CheckStatus.PASS
    for told in (None, "", "1", "GPU-9"):  # CUDA's own numbers say nothing about the driver's
        assert visible_gpus(mixed, told) == mixed


def test_too_few_cards_fail() -> None:
    two = GpuProfile(count=Bound(require=2, recommend=None))
    finding = judge_devices(GpuInventory((gpu(0),)), two)
    assert finding.status is CheckStatus.FAIL
    assert "at least 2 GPU(s)" in (finding.remedy or "")


def test_fewer_cards_or_less_memory_than_recommended_warns() -> None:
    finding = judge_devices(GpuInventory((gpu(0, 24),)), PROFILE)
    assert finding.status is CheckStatus.WARN
    assert "at least 40 GB" in (finding.remedy or "")
    better = GpuProfile(count=Bound(require=1, recommend=4))
    assert judge_devices(GpuInventory((gpu(0),)), better).status is CheckStatus.WARN


@pytest.mark.parametrize(("count", "status"), [(1, CheckStatus.FAIL), (None, CheckStatus.WARN)])
def test_a_lost_card_fails_where_gpus_are_asked_for(count: int | None, status: CheckStatus) -> None:
    lost = replace(gpu(1, None, None, "GPU is lost"), is_usable=False)
    finding = judge_devices(GpuInventory((gpu(0), lost)), GpuProfile(count=Bound(require=count)))
    assert finding.status is status
    assert "1: NVIDIA H100, GPU is lost" in finding.observed
    assert "Xid errors of GPU 1" in (finding.remedy or "")
    assert "--gpu-reset -i 1" in (finding.remedy or "")


def test_one_reading_that_fails_does_not_condemn_a_card() -> None:
    finding = judge_devices(GpuInventory((gpu(0, error="Unknown Error"),)), PROFILE)
    assert finding.status is CheckStatus.PASS
    assert "Unknown Error" in finding.observed


def test_what_is_not_told_is_not_held_against_a_card() -> None:
    assert find_misses(gpu(0, None, None), PROFILE) == []
    assert describe_gpu(GpuReading(3, name="NVIDIA T4")) == "3: NVIDIA T4"


@pytest.mark.parametrize(
    ("dtype", "oldest", "just_too_old"),
    [
        ("float16", (5, 3), (5, 2)),
        ("bfloat16", (8, 0), (7, 5)),
        ("float8", (8, 9), (8, 7)),
        ("float4", (10, 0), (9, 0)),
    ],
)
def test_dtypes_begin_at_their_capability(dtype: str, oldest: tuple[int, int], just_too_old: tuple[int, int]) -> None:
    profile = GpuProfile(dtypes=(dtype,))
    assert find_misses(gpu(0, cc=oldest), profile) == []
    assert len(find_misses(gpu(0, cc=just_too_old), profile)) == 1


def test_the_expectation_reads_as_a_sentence() -> None:
    assert expect_devices(PROFILE) == (
        "at least 1 GPU(s), at least 22 GB, better 40 GB each, compute capability 7.5 or newer, float16 and bfloat16"
    )
    assert expect_devices(GpuProfile()) == "any GPU(s)"


@given(st.tuples(st.integers(1, 20), st.integers(0, 9)))
def test_capabilities_survive_their_text(value: tuple[int, int]) -> None:
    assert capability(dotted(value)) == value
