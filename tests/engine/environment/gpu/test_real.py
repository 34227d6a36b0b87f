"""The whole family on a real card."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict

import pytest
import torch

from engine.environment.check import CheckResult, CheckStatus, run_checks
from engine.environment.context import CheckContext
from engine.environment.gpu import gpu_checks
from engine.environment.gpu.probing import read_probe
from engine.environment.profile import Bound, GpuProfile, Profile
from engine.telemetry.nvml import Nvml

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(600)]

PROFILE = Profile(title="a real card", gpu=GpuProfile(count=Bound(require=1, recommend=None), dtypes=("float16",)))


@pytest.fixture(scope="module")
def nvml() -> Iterator[Nvml]:
    with closing(Nvml()) as door:
        yield door


@pytest.fixture(scope="module")
def results(nvml: Nvml, tmp_path_factory: pytest.TempPathFactory) -> dict[str, CheckResult]:
    """Quick and deep, once for all tests; printed, to be read with `pytest -s`."""
    was_initialized = torch.cuda.is_initialized()
    context = CheckContext(PROFILE, tmp_path_factory.mktemp("home"), nvml)
    found = {result.id: result for result in run_checks(gpu_checks(context))}
    for result in found.values():
        print(f"{result.status:<5} {result.id} {result.taken_s:.2f} s: {result.observed}\n      -> {result.remedy}")
    assert torch.cuda.is_initialized() is was_initialized, "the checks made a CUDA context in the console's process"
    return found


def test_nothing_is_left_undecided(results: dict[str, CheckResult]) -> None:
    assert {id: result.observed for id, result in results.items() if result.status is CheckStatus.ERROR} == {}


@pytest.mark.parametrize("id", ["gpu.driver", "gpu.devices", "gpu.torch", "gpu.arch", "gpu.kernel"])
def test_a_card_that_runs_torch_passes(results: dict[str, CheckResult], id: str) -> None:
    assert results[id].status is CheckStatus.PASS, results[id]


def test_the_quick_probe_is_quick(results: dict[str, CheckResult]) -> None:
    assert results["gpu.kernel"].taken_s < 60


def test_rates_are_those_of_a_gpu(results: dict[str, CheckResult]) -> None:
    for id in ("gpu.bandwidth", "gpu.tflops"):
        assert results[id].status in (CheckStatus.PASS, CheckStatus.WARN), results[id]
    facts = results["gpu.bandwidth"].facts
    copied = [float(value or 0) for name, value in facts.items() if re.fullmatch(r"gpu\d+_device_gb_per_s", name)]
    assert min(copied) > 300
    tflops = [float(value or 0) for name, value in results["gpu.tflops"].facts.items() if name.endswith("_tflops")]
    assert min(tflops) > 5


def test_several_gpus_add_up(results: dict[str, CheckResult], nvml: Nvml) -> None:
    several = len(nvml.read().gpus) > 1
    expected = CheckStatus.PASS if several else CheckStatus.SKIP
    assert results["gpu.nccl"].status is expected, results["gpu.nccl"]
    assert (results["gpu.topology"].status is CheckStatus.SKIP) is not several


def test_results_are_json(results: dict[str, CheckResult]) -> None:
    assert json.loads(json.dumps([asdict(result) for result in results.values()]))


def test_health_is_told(nvml: Nvml) -> None:
    health = nvml.read_health()
    assert health.reason is None
    for gpu in health.gpus:
        assert gpu.error is None
        assert gpu.uuid
        assert gpu.memory_total_bytes


def test_the_probe_names_nvmls_gpus(nvml: Nvml) -> None:
    reading = read_probe("kernels", 60)
    assert reading.error is None
    assert {gpu.uuid for gpu in reading.gpus} <= {gpu.uuid for gpu in nvml.read().gpus}
