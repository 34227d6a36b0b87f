"""How the GPUs of one host reach each other."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from itertools import combinations
from typing import Any

from engine.telemetry.nvml.asking import Asker


class GpuPath(StrEnum):
    """The nearest thing two GPUs share, in the words of `nvidia-smi topo -m`, nearest first."""

    SAME_BOARD = "the same board"
    PIX = "one PCIe switch (PIX)"
    PXB = "several PCIe switches (PXB)"
    PHB = "the CPU's PCIe host bridge (PHB)"
    NODE = "host bridges of one NUMA node (NODE)"
    SYS = "the interconnect between CPUs (SYS)"


# nvmlGpuTopologyLevel_t, https://docs.nvidia.com/deploy/nvml-api
PATH_LEVELS = {
    0: GpuPath.SAME_BOARD,
    10: GpuPath.PIX,
    20: GpuPath.PXB,
    30: GpuPath.PHB,
    40: GpuPath.NODE,
    50: GpuPath.SYS,
}


@dataclass(frozen=True)
class GpuPair:
    """Two GPUs. `has_nvlink` says that they reach each other over NVLink, directly or through a switch."""

    first: int
    second: int
    path: GpuPath | None = None
    has_nvlink: bool | None = None


@dataclass(frozen=True)
class Topology:
    """Every pair of GPUs; `reason` is one sentence on why the driver lists none, else None."""

    num_gpus: int = 0
    pairs: tuple[GpuPair, ...] = ()
    reason: str | None = None


def read_pairs(nvml: Any, num_gpus: int) -> tuple[GpuPair, ...]:
    """Every pair of `num_gpus` GPUs; two driver calls a pair."""
    asker = Asker(nvml)
    handles = [asker.ask(nvml.nvmlDeviceGetHandleByIndex, index) for index in range(num_gpus)]
    return tuple(
        _read_pair(nvml, first, second, handles[first], handles[second])
        for first, second in combinations(range(num_gpus), 2)
    )


def _read_pair(nvml: Any, first: int, second: int, one: Any, other: Any) -> GpuPair:
    if one is None or other is None:
        return GpuPair(first, second)
    asker = Asker(nvml)
    level = asker.ask(nvml.nvmlDeviceGetTopologyCommonAncestor, one, other)
    status = asker.ask_beyond(nvml.nvmlDeviceGetP2PStatus, one, other, nvml.NVML_P2P_CAPS_INDEX_NVLINK)
    return GpuPair(
        first,
        second,
        path=None if level is None else PATH_LEVELS.get(level),
        has_nvlink=None if status is None else status == nvml.NVML_P2P_STATUS_OK,
    )
