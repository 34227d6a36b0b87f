from __future__ import annotations

import pytest

from engine.environment.check import CheckStatus
from engine.environment.gpu.cuda import CompatPackage
from engine.environment.gpu.torch_build import describe_build, judge_torch
from engine.environment.profile import Bound, GpuProfile
from engine.environment.python import TorchBuild
from engine.telemetry.nvml import GpuInventory, GpuReading

NEEDED = GpuProfile(count=Bound(require=1, recommend=None), cuda_min="12.0")
CUDA_13 = TorchBuild("2.13.0+cu130", "13.0")
COMPAT = CompatPackage("/usr/local/cuda-13.0/compat", "580.65.06", is_on_path=True)


def inventory(driver: str | None = "580.95.05", cuda: str | None = "13.0") -> GpuInventory:
    return GpuInventory((GpuReading(0),), driver, cuda)


def test_without_a_gpu_it_skips_and_still_names_the_build() -> None:
    finding = judge_torch(CUDA_13, GpuInventory(reason="No driver."), NEEDED)
    assert (finding.status, finding.observed) == (
        CheckStatus.SKIP,
        "torch 2.13.0+cu130, built with CUDA 13.0; No driver.",
    )


def test_a_build_that_the_driver_runs_passes() -> None:
    finding = judge_torch(CUDA_13, inventory(), NEEDED)
    assert finding.status is CheckStatus.PASS
    assert finding.observed == "torch 2.13.0+cu130, built with CUDA 13.0; driver 580.95.05 for CUDA 13.0: native"
    assert finding.facts == {"torch_version": "2.13.0+cu130", "torch_cuda": "13.0", "compatibility": "native"}


def test_an_older_driver_of_the_family_passes_and_says_how() -> None:
    finding = judge_torch(TorchBuild("2.13.0+cu132", "13.2"), inventory(), NEEDED)
    assert finding.status is CheckStatus.PASS
    assert "minor-version compatibility (kernels that come as PTX of CUDA 13.2 need driver 595.45.04)" in (
        finding.observed
    )


@pytest.mark.parametrize("build", [None, TorchBuild("2.13.0+cpu", None)])
def test_no_cuda_build_beside_a_gpu_fails_or_warns_by_the_profile(build: TorchBuild | None) -> None:
    finding = judge_torch(build, inventory(), NEEDED)
    assert finding.status is CheckStatus.FAIL
    assert "CUDA build of torch for CUDA 13.0 or older" in (finding.remedy or "")
    assert judge_torch(build, inventory(cuda=None), GpuProfile()).status is CheckStatus.WARN


def test_a_driver_that_is_too_old_fails_with_the_version_to_go_to() -> None:
    finding = judge_torch(CUDA_13, inventory("550.54.15", "12.4"), NEEDED)
    assert finding.status is CheckStatus.FAIL
    assert finding.observed.endswith("driver 550.54.15 for CUDA 12.4: too old")
    for words in ("580.65.06 or newer", "cuda-compat-13-0", "CUDA 12.4 or older"):
        assert words in (finding.remedy or "")


def test_forward_compatibility_passes_on_data_center_cards() -> None:
    finding = judge_torch(CUDA_13, inventory("535.54.03", "12.2"), GpuProfile(), COMPAT, is_data_center=True)
    assert finding.status is CheckStatus.PASS
    assert "forward compatibility (libcuda 580.65.06 from /usr/local/cuda-13.0/compat)" in finding.observed


def test_an_installed_package_off_the_path_is_in_the_remedy() -> None:
    package = CompatPackage(COMPAT.folder, COMPAT.driver_version, is_on_path=False)
    finding = judge_torch(CUDA_13, inventory("535.54.03", "12.2"), NEEDED, package, is_data_center=True)
    assert finding.status is CheckStatus.FAIL
    assert "LD_LIBRARY_PATH=/usr/local/cuda-13.0/compat" in (finding.remedy or "")


@pytest.mark.parametrize(
    ("is_data_center", "driver", "code"), [(False, "580.65.06", "804"), (True, "590.48.01", "803")]
)
def test_a_package_that_gets_in_the_way_warns(is_data_center: bool, driver: str, code: str) -> None:
    finding = judge_torch(CUDA_13, inventory(driver), NEEDED, COMPAT, is_data_center)
    assert finding.status is CheckStatus.WARN
    assert f"error {code}" in finding.observed
    assert "Take /usr/local/cuda-13.0/compat out of LD_LIBRARY_PATH" in (finding.remedy or "")


def test_older_than_the_profile_fails() -> None:
    wanted = GpuProfile(count=Bound(require=1, recommend=None), cuda_min="12.8")
    build = judge_torch(TorchBuild("2.7.0+cu126", "12.6"), inventory(), wanted)
    assert build.status is CheckStatus.FAIL
    assert "the profile asks for CUDA 12.8" in build.observed
    driver = judge_torch(TorchBuild("2.9.0+cu128", "12.8"), inventory("550.54.14", "12.4"), wanted)
    assert driver.status is CheckStatus.FAIL
    assert "570.26 or newer" in (driver.remedy or "")


def test_a_driver_that_tells_nothing_warns() -> None:
    finding = judge_torch(CUDA_13, inventory(None, None), NEEDED)
    assert finding.status is CheckStatus.WARN
    assert "Update the NVIDIA driver" in (finding.remedy or "")


def test_builds_in_words() -> None:
    assert describe_build(None) == "torch is not installed"
    assert describe_build(TorchBuild("2.13.0+cpu", None)) == "torch 2.13.0+cpu, built without CUDA"
