from __future__ import annotations

from itertools import combinations

from engine.environment.check import CheckStatus
from engine.environment.gpu.links import judge_topology
from engine.telemetry.nvml import GpuHealth, GpuPair, GpuPath, Topology


def all_pairs(num_gpus: int, without: frozenset[int] = frozenset()) -> Topology:
    pairs = tuple(
        GpuPair(one, other, GpuPath.SYS, not {one, other} & without) for one, other in combinations(range(num_gpus), 2)
    )
    return Topology(num_gpus, pairs)


def gpus(*active: int) -> tuple[GpuHealth, ...]:
    return tuple(
        GpuHealth(index, name="NVIDIA H200", num_nvlinks=18, num_nvlinks_active=number)
        for index, number in enumerate(active)
    )


def test_nvlink_between_all_passes() -> None:
    finding = judge_topology(all_pairs(8), gpus(*[18] * 8))
    assert (finding.status, finding.observed) == (CheckStatus.PASS, "NVLink between all 8")
    assert finding.facts["pair_0_7"] == "NVLink"


def test_pairs_without_nvlink_tell_their_way() -> None:
    pairs = (
        GpuPair(0, 1, GpuPath.PIX, True),
        GpuPair(0, 2, GpuPath.SYS, False),
        GpuPair(0, 3, GpuPath.SYS, False),
        GpuPair(1, 2, GpuPath.SYS, False),
        GpuPair(1, 3, None, None),
        GpuPair(2, 3, GpuPath.PIX, True),
    )
    finding = judge_topology(Topology(4, pairs), ())
    assert finding.status is CheckStatus.PASS
    assert finding.observed == (
        "NVLink: 0-1, 2-3; only through the interconnect between CPUs (SYS): 0-2, 0-3, 1-2; a way that is not told: 1-3"
    )


def test_two_cards_on_pcie_pass() -> None:
    finding = judge_topology(Topology(2, (GpuPair(0, 1, GpuPath.PHB, False),)), ())
    assert finding.observed == "only through the CPU's PCIe host bridge (PHB) between GPU 0 and 1"
    assert finding.status is CheckStatus.PASS


def test_a_card_with_fewer_links_than_its_like_warns() -> None:
    finding = judge_topology(all_pairs(2), gpus(18, 16))
    assert finding.status is CheckStatus.WARN
    assert "GPU 1 has 16 of 18 NVLinks active" in finding.observed
    assert "nvidia-smi nvlink -s" in (finding.remedy or "")


def test_a_card_apart_from_the_others_warns() -> None:
    finding = judge_topology(all_pairs(4, frozenset({2})), ())
    assert finding.status is CheckStatus.WARN
    assert "GPU 2 reaches no other over NVLink" in finding.observed
    assert "nvidia-fabricmanager" in (finding.remedy or "")


def test_one_gpu_or_none_skips() -> None:
    assert judge_topology(Topology(1), ()).status is CheckStatus.SKIP
    assert judge_topology(Topology(reason="No driver."), ()).observed == "No driver."
