from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pynvml
import pytest

from engine.environment.check import CheckResult, CheckStatus, run_checks
from engine.environment.context import CheckContext
from engine.environment.gpu.family import Probes, gpu_checks
from engine.environment.gpu.probing import AllReduceReading, ProbedGpu, ProbeReading
from engine.environment.profile import Bound, GpuProfile, Profile
from engine.environment.python import TorchBuild
from engine.telemetry.nvml import Nvml
from tests.engine.telemetry.fakes import GIB, FakeBinding, FakeGpu, healthy_but, no_such_thing

IDS = [
    "gpu.driver",
    "gpu.device_nodes",
    "gpu.devices",
    "gpu.torch",
    "gpu.ecc",
    "gpu.remapped_rows",
    "gpu.throttle",
    "gpu.power_limit",
    "gpu.persistence",
    "gpu.pcie",
    "gpu.mig",
    "gpu.memory_in_use",
    "gpu.topology",
    "gpu.arch",
    "gpu.kernel",
    "gpu.bandwidth",
    "gpu.tflops",
    "gpu.nccl",
]
DEEP = {"gpu.bandwidth", "gpu.tflops", "gpu.nccl"}
NEEDED = GpuProfile(
    count=Bound(require=1, recommend=None), memory_gb=Bound(require=78, recommend=None), cuda_min="12.0"
)


def probed(uuid: str, index: int) -> ProbedGpu:
    return ProbedGpu(
        index,
        uuid,
        "NVIDIA H200",
        (9, 0),
        ("float32", "bfloat16"),
        device_bytes_per_s=4.2e12,
        to_device_bytes_per_s=50e9,
        from_device_bytes_per_s=50e9,
        flops=780e12,
        flops_dtype="bfloat16",
    )


class PlayedProbes:
    """Counts what is asked of the GPUs, in order."""

    def __init__(self, kernels: ProbeReading | None = None) -> None:
        both = (probed("GPU-a", 0), probed("GPU-b", 1))
        self.reading = kernels or ProbeReading(both, ("sm_90",))
        self.calls: list[str] = []

    def probes(self, cuda: str | None = "13.0") -> Probes:
        return Probes(
            kernels=self._kernels,
            speeds=self._speeds,
            all_reduce=self._all_reduce,
            torch_build=lambda: TorchBuild("2.13.0", cuda),
        )

    def _kernels(self) -> ProbeReading:
        self.calls.append("kernels")
        return self.reading

    def _speeds(self) -> ProbeReading:
        self.calls.append("speeds")
        return self.reading

    def _all_reduce(self, num_processes: int) -> AllReduceReading:
        self.calls.append(f"all_reduce {num_processes}")
        return AllReduceReading(num_processes, is_right=True, bus_bytes_per_s=370e9)


def empty() -> dict[str, object]:
    return healthy_but(MemoryInfo=pynvml.c_nvmlMemory_t(total=140 * GIB, used=GIB, free=139 * GIB))


def context(root: Path, *gpus: FakeGpu, profile: GpuProfile = NEEDED, error: int | None = None) -> CheckContext:
    nvml = Nvml(FakeBinding(*gpus, init_error=error))
    return CheckContext(Profile(title="test", gpu=profile), root, nvml, root=root)


def host(root: Path) -> Path:
    """A root with the files of a driver in place."""
    (root / "proc/driver/nvidia").mkdir(parents=True)
    (root / "proc/driver/nvidia/version").touch()
    (root / "dev").mkdir()
    for name in ("nvidiactl", "nvidia-uvm", "nvidia0"):
        (root / "dev" / name).touch()
    return root


def run(context: CheckContext, probes: Probes) -> dict[str, CheckResult]:
    return {result.id: result for result in run_checks(gpu_checks(context, probes))}


def test_two_healthy_gpus_pass_every_check(tmp_path: Path) -> None:
    played = PlayedProbes()
    gpus = FakeGpu("GPU-a", empty()), FakeGpu("GPU-b", empty())
    results = run(context(host(tmp_path), *gpus), played.probes())
    assert list(results) == IDS
    assert {id for id, result in results.items() if result.status is not CheckStatus.PASS} == set()
    assert played.calls == ["kernels", "speeds", "all_reduce 2"]


def test_building_reads_nothing_and_the_deep_ones_are_marked(tmp_path: Path) -> None:
    binding = FakeBinding(FakeGpu())
    checks = gpu_checks(CheckContext(Profile(title="test"), tmp_path, Nvml(binding), root=tmp_path))
    assert binding.calls == []
    assert {check.id for check in checks if check.is_deep} == DEEP
    assert all(check.timeout_s > 60 for check in checks if check.id in DEEP | {"gpu.kernel", "gpu.arch"})


@pytest.mark.parametrize("profile", [NEEDED, GpuProfile()])
def test_without_a_gpu_all_skip_and_one_says_if_it_is_needed(tmp_path: Path, profile: GpuProfile) -> None:
    played = PlayedProbes()
    without = context(tmp_path, profile=profile, error=pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)
    results = run(without, played.probes())
    failed = {id for id, result in results.items() if result.status is not CheckStatus.SKIP}
    assert failed == ({"gpu.devices"} if profile.is_required else set())
    assert all("No NVIDIA driver library" in result.observed for result in results.values())
    assert played.calls == []


def test_a_torch_without_cuda_starts_no_probe(tmp_path: Path) -> None:
    played = PlayedProbes()
    results = run(context(host(tmp_path), FakeGpu("GPU-a", empty())), played.probes(cuda=None))
    assert results["gpu.torch"].status is CheckStatus.FAIL
    for id in ("gpu.arch", "gpu.kernel", *DEEP):
        assert results[id].status is CheckStatus.SKIP
    assert played.calls == []


def test_a_gpu_that_hangs_is_probed_once(tmp_path: Path) -> None:
    played = PlayedProbes(ProbeReading(error="the probe gave no answer within 60 s and was ended"))
    gpus = FakeGpu("GPU-a", empty()), FakeGpu("GPU-b", empty())
    results = run(context(host(tmp_path), *gpus), played.probes())
    assert results["gpu.kernel"].status is CheckStatus.FAIL
    assert results["gpu.arch"].status is CheckStatus.SKIP
    assert results["gpu.nccl"].status is CheckStatus.SKIP
    assert results["gpu.tflops"].status is CheckStatus.FAIL
    assert played.calls == ["kernels"]


def test_one_gpu_needs_no_all_reduce(tmp_path: Path) -> None:
    played = PlayedProbes(ProbeReading((probed("GPU-a", 0),), ("sm_90",)))
    results = run(context(host(tmp_path), FakeGpu("GPU-a", empty())), played.probes())
    assert results["gpu.nccl"].status is results["gpu.topology"].status is CheckStatus.SKIP
    assert "one GPU only" in results["gpu.topology"].observed
    assert played.calls == ["kernels", "speeds"]


@pytest.mark.parametrize(
    ("changes", "id", "status", "words"),
    [
        ({"TotalEccErrors": 1}, "gpu.ecc", CheckStatus.FAIL, "--gpu-reset -i 0"),
        ({"RemappedRows": (0, 1, 1, 0)}, "gpu.remapped_rows", CheckStatus.WARN, "--gpu-reset -i 0"),
        ({"RemappedRows": (0, 1, 0, 1)}, "gpu.remapped_rows", CheckStatus.FAIL, "replaced"),
        ({"CurrentClocksEventReasons": 0x48}, "gpu.throttle", CheckStatus.WARN, "too hot"),
        ({"PowerManagementDefaultLimit": 900_000}, "gpu.power_limit", CheckStatus.WARN, "-pl 900"),
        ({"PersistenceMode": 0}, "gpu.persistence", CheckStatus.WARN, "-pm 1"),
        ({"CurrPcieLinkWidth": 8}, "gpu.pcie", CheckStatus.WARN, "Reseat"),
        ({"MigMode": [1, 1]}, "gpu.mig", CheckStatus.WARN, "MIG-"),
        ({}, "gpu.memory_in_use", CheckStatus.WARN, "nvidia-smi"),
    ],
)
def test_what_the_driver_says_reaches_its_check(
    tmp_path: Path, changes: dict[str, object], id: str, status: CheckStatus, words: str
) -> None:
    gpu = FakeGpu("GPU-a", healthy_but(**changes))  # 20 GiB of it are in use
    results = run(context(host(tmp_path), gpu), PlayedProbes().probes())
    assert results[id].status is status
    assert words in (results[id].remedy or "")


def test_a_missing_device_file_fails(tmp_path: Path) -> None:
    root = host(tmp_path)
    (root / "dev/nvidia-uvm").unlink()
    results = run(context(root, FakeGpu("GPU-a", empty())), PlayedProbes().probes())
    assert results["gpu.device_nodes"].status is CheckStatus.FAIL
    assert "nvidia-modprobe" in (results["gpu.device_nodes"].remedy or "")


def test_uneven_links_warn(tmp_path: Path) -> None:
    half = empty() | {"nvmlDeviceGetNvLinkState": lambda link: int(link < 9) if link < 18 else no_such_thing()}
    gpus = FakeGpu("GPU-a", empty()), FakeGpu("GPU-b", half)
    results = run(context(host(tmp_path), *gpus), PlayedProbes().probes())
    assert "GPU 1 has 9 of 18 NVLinks active" in results["gpu.topology"].observed


def test_a_wrong_kernel_fails_the_check(tmp_path: Path) -> None:
    wrong = replace(probed("GPU-a", 0), wrong=("bfloat16",))
    played = PlayedProbes(ProbeReading((wrong,), ("sm_90",)))
    results = run(context(host(tmp_path), FakeGpu("GPU-a", empty())), played.probes())
    assert results["gpu.kernel"].status is CheckStatus.FAIL
