from __future__ import annotations

import pynvml

from engine.telemetry.nvml import GpuPair, GpuPath, Nvml, Topology
from engine.telemetry.nvml.topology import PATH_LEVELS
from tests.engine.telemetry.fakes import FakeBinding, FakeGpu, healthy_but


def test_every_pair_is_told_once() -> None:
    topology = Nvml(FakeBinding(FakeGpu("GPU-a"), FakeGpu("GPU-b"), FakeGpu("GPU-c"))).read_topology()
    pairs = tuple(GpuPair(one, other, GpuPath.NODE, True) for one, other in ((0, 1), (0, 2), (1, 2)))
    assert topology == Topology(3, pairs)


def test_the_other_gpu_is_what_is_asked_about() -> None:
    def status(other: FakeGpu, index: int) -> int:
        assert index == pynvml.NVML_P2P_CAPS_INDEX_NVLINK
        return int(pynvml.NVML_P2P_STATUS_OK if other.uuid == "GPU-b" else pynvml.NVML_P2P_STATUS_NOT_SUPPORTED)

    answers = healthy_but(
        P2PStatus=status,
        TopologyCommonAncestor=lambda other: (
            pynvml.NVML_TOPOLOGY_SINGLE if other.uuid == "GPU-b" else pynvml.NVML_TOPOLOGY_SYSTEM
        ),
    )
    gpus = [FakeGpu(uuid, answers) for uuid in ("GPU-a", "GPU-b", "GPU-c")]
    assert Nvml(FakeBinding(*gpus)).read_topology().pairs == (
        GpuPair(0, 1, GpuPath.PIX, True),
        GpuPair(0, 2, GpuPath.SYS, False),
        GpuPair(1, 2, GpuPath.SYS, False),
    )


def test_levels_are_the_librarys() -> None:
    assert {level: path.name for level, path in PATH_LEVELS.items()} == {
        pynvml.NVML_TOPOLOGY_INTERNAL: "SAME_BOARD",
        pynvml.NVML_TOPOLOGY_SINGLE: "PIX",
        pynvml.NVML_TOPOLOGY_MULTIPLE: "PXB",
        pynvml.NVML_TOPOLOGY_HOSTBRIDGE: "PHB",
        pynvml.NVML_TOPOLOGY_NODE: "NODE",
        pynvml.NVML_TOPOLOGY_SYSTEM: "SYS",
    }


def test_what_cannot_be_told_is_none() -> None:
    names = ("nvmlDeviceGetTopologyCommonAncestor", "nvmlDeviceGetP2PStatus")
    silent = FakeGpu("GPU-a", errors=dict.fromkeys(names, pynvml.NVML_ERROR_NOT_SUPPORTED))
    lost = FakeGpu("GPU-c", errors={"nvmlDeviceGetHandleByIndex": pynvml.NVML_ERROR_GPU_IS_LOST})
    assert Nvml(FakeBinding(silent, FakeGpu("GPU-b"))).read_topology().pairs == (GpuPair(0, 1),)
    assert Nvml(FakeBinding(FakeGpu("GPU-b"), lost)).read_topology().pairs == (GpuPair(0, 1),)


def test_without_a_driver_the_reason_is_given() -> None:
    topology = Nvml(FakeBinding(init_error=pynvml.NVML_ERROR_DRIVER_NOT_LOADED)).read_topology()
    assert topology.num_gpus == 0
    assert "kernel module is not loaded" in (topology.reason or "")
