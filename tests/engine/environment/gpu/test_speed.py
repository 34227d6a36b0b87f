from __future__ import annotations

from dataclasses import replace

import pytest

from engine.environment.check import CheckStatus
from engine.environment.gpu.probing import ProbedGpu, ProbeReading
from engine.environment.gpu.speed import judge_bandwidth, judge_flops
from engine.environment.profile import Bound, GpuProfile
from engine.telemetry.nvml import GpuHealth, GpuInventory, GpuReading, PcieReading

NEEDED = GpuProfile(count=Bound(require=1, recommend=None))
INVENTORY = GpuInventory((GpuReading(0, "GPU-a"),))
HEALTH: dict[str | None, GpuHealth] = {"GPU-a": GpuHealth(0, "GPU-a", pcie=PcieReading(1, 5, 16, 16))}
FAST = ProbedGpu(
    0,
    "GPU-a",
    "NVIDIA H200",
    device_bytes_per_s=4.28e12,
    to_device_bytes_per_s=55.1e9,
    from_device_bytes_per_s=54e9,
    flops=790e12,
    flops_dtype="bfloat16",
)


def test_a_healthy_card_passes_with_both_figures() -> None:
    finding = judge_bandwidth(ProbeReading((FAST,)), INVENTORY, HEALTH, NEEDED)
    assert finding.status is CheckStatus.PASS
    assert "4.28 TB/s within the device (H200 SXM: 4.80 by the datasheet, attainable 4.22" in finding.observed
    assert "55.1 GB/s from pinned host memory, 54.0 GB/s back (link 63 GB/s" in finding.observed
    assert finding.facts["gpu0_device_gb_per_s"] == 4300.0
    flops = judge_flops(ProbeReading((FAST,)), INVENTORY, NEEDED)
    assert flops.status is CheckStatus.PASS
    assert "790 TFLOP/s in bfloat16 (H200 SXM: 989 by the datasheet, attainable 702, as we measured)" in flops.observed


def test_slow_memory_warns() -> None:
    slow = ProbeReading((replace(FAST, device_bytes_per_s=3e12),))
    finding = judge_bandwidth(slow, INVENTORY, HEALTH, NEEDED)
    assert finding.status is CheckStatus.WARN
    assert "nvidia-smi -q -d CLOCK,PERFORMANCE" in (finding.remedy or "")


def test_a_slow_link_warns_and_one_that_is_not_told_does_not() -> None:
    slow = ProbeReading((replace(FAST, from_device_bytes_per_s=12e9),))
    finding = judge_bandwidth(slow, INVENTORY, HEALTH, NEEDED)
    assert finding.status is CheckStatus.WARN
    assert "NUMA node" in (finding.remedy or "")
    assert judge_bandwidth(slow, INVENTORY, {}, NEEDED).status is CheckStatus.PASS


def test_slow_arithmetic_warns_at_the_profiles_ratio() -> None:
    slow = ProbeReading((replace(FAST, flops=500e12),))
    finding = judge_flops(slow, INVENTORY, NEEDED)
    assert finding.status is CheckStatus.WARN
    assert "NVIDIA H200" in (finding.remedy or "")
    assert "POWER" in (finding.remedy or "")
    easy = GpuProfile(count=NEEDED.count, measured_ratio_min=0.5)
    assert judge_flops(slow, INVENTORY, easy).status is CheckStatus.PASS


def test_an_unknown_card_is_measured_and_passes() -> None:
    unknown = ProbeReading((replace(FAST, name="NVIDIA X1", flops=1e9, device_bytes_per_s=1e9),))
    assert "no known figure for this card" in judge_flops(unknown, INVENTORY, NEEDED).observed
    finding = judge_bandwidth(unknown, INVENTORY, HEALTH, NEEDED)
    assert finding.status is CheckStatus.PASS
    assert "no known figure for this card" in finding.observed


def test_an_estimate_is_called_one() -> None:
    card = ProbeReading((replace(FAST, name="NVIDIA L4", flops=60e12),))
    assert "45% of it, an estimate, not measured by us" in judge_flops(card, INVENTORY, NEEDED).observed


@pytest.mark.parametrize(
    "reading", [ProbeReading(error="the probe hung"), ProbeReading((ProbedGpu(0, "GPU-a", error="RuntimeError: x"),))]
)
def test_what_was_not_measured_fails_where_a_gpu_is_needed(reading: ProbeReading) -> None:
    for finding in (
        judge_flops(reading, INVENTORY, NEEDED),
        judge_bandwidth(reading, INVENTORY, HEALTH, NEEDED),
    ):
        assert finding.status is CheckStatus.FAIL
        assert "check of the kernel" in (finding.remedy or "")


def test_a_full_card_skips() -> None:
    full = ProbeReading((ProbedGpu(0, "GPU-a", error="RuntimeError: only 512 MiB of its memory are free, too little"),))
    assert judge_flops(full, INVENTORY, NEEDED).status is CheckStatus.SKIP
