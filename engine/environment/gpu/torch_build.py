"""The installed torch against the driver and the profile: can this build run on these GPUs."""

from __future__ import annotations

from engine.environment.check import CheckStatus, Fact, Finding
from engine.environment.gpu.cuda import (
    Compatibility,
    CompatPackage,
    family_driver,
    find_compatibility,
    is_at_least,
    parse_version,
    toolkit_driver,
)
from engine.environment.gpu.each import severity, skip
from engine.environment.profile import GpuProfile
from engine.environment.python import TorchBuild
from engine.telemetry.nvml import GpuInventory

INSTALL = "https://pytorch.org/get-started/locally/"


def judge_torch(
    build: TorchBuild | None,
    inventory: GpuInventory,
    profile: GpuProfile,
    package: CompatPackage | None = None,
    is_data_center: bool = False,
) -> Finding:
    """Built with CUDA, with one that the profile and the driver allow; a build without CUDA is right without a GPU."""
    described = describe_build(build)
    if inventory.reason is not None:
        return skip(f"{described}; {inventory.reason}")
    driver, driver_cuda = inventory.driver_version, inventory.cuda_driver_version
    if build is None or build.cuda_version is None:
        return Finding(
            severity(profile), f"{described}, but there is a GPU", _install(driver_cuda), _facts(build, None)
        )
    holds = find_compatibility(build.cuda_version, driver, driver_cuda, package, is_data_center)
    observed = f"{described}; driver {driver or 'not told'} for CUDA {driver_cuda or 'not told'}: {holds}"
    facts = _facts(build, holds)
    if holds is Compatibility.TOO_OLD:
        return Finding(severity(profile), observed, _newer_driver(build.cuda_version, driver_cuda, package), facts)
    if holds is Compatibility.UNKNOWN:
        remedy = "Update the NVIDIA driver: it tells neither its version nor which CUDA it supports."
        return Finding(CheckStatus.WARN, observed, remedy, facts)
    if wrong := _judge_minimum(build.cuda_version, driver_cuda, profile):
        return Finding(CheckStatus.FAIL, f"{observed}; {wrong[0]}", wrong[1], facts)
    if wrong := _judge_package(package, driver, is_data_center):
        return Finding(CheckStatus.WARN, f"{observed}; {wrong[0]}", wrong[1], facts)
    return Finding(CheckStatus.PASS, observed + _limits(holds, build.cuda_version, package), facts=facts)


def describe_build(build: TorchBuild | None) -> str:
    """`torch 2.13.0+cu130, built with CUDA 13.0`."""
    if build is None:
        return "torch is not installed"
    return f"torch {build.version}, built " + (
        f"with CUDA {build.cuda_version}" if build.cuda_version else "without CUDA"
    )


def _judge_minimum(cuda: str, driver_cuda: str | None, profile: GpuProfile) -> tuple[str, str] | None:
    """What is older than the profile's CUDA, and the remedy."""
    wanted = profile.cuda_min
    if wanted is None:
        return None
    if not is_at_least(cuda, wanted):
        return f"the profile asks for CUDA {wanted}", _install(driver_cuda)
    if driver_cuda is not None and not is_at_least(driver_cuda, wanted):
        needed = toolkit_driver(wanted)
        remedy = f"Update the NVIDIA driver to one for CUDA {wanted}" + (f", {needed} or newer." if needed else ".")
        return f"the profile asks for a driver of CUDA {wanted}", remedy
    return None


def _judge_package(package: CompatPackage | None, driver: str | None, is_data_center: bool) -> tuple[str, str] | None:
    """A forward-compatibility library that the loader prefers and that cannot work here, and the remedy."""
    if package is None or not package.is_on_path:
        return None
    remedy = f"Take {package.folder} out of LD_LIBRARY_PATH and /etc/ld.so.conf.d, then run `sudo ldconfig`."
    shown = f"libcuda {package.driver_version} of {package.folder} is loaded before the driver's own"
    if driver is not None and not is_at_least(package.driver_version, driver):
        return f"{shown}, which is newer: CUDA may refuse with error 803", remedy
    if not is_data_center:
        return f"{shown}, and only data-center cards allow it: CUDA may refuse with error 804", remedy
    return None


def _limits(holds: Compatibility, cuda: str, package: CompatPackage | None) -> str:
    """What somebody should know who builds kernels of their own."""
    if holds is Compatibility.MINOR:
        return f" (kernels that come as PTX of CUDA {cuda} need driver {toolkit_driver(cuda) or 'of that release'})"
    if holds is Compatibility.FORWARD and package is not None:
        return f" (libcuda {package.driver_version} from {package.folder})"
    return ""


def _newer_driver(cuda: str, driver_cuda: str | None, package: CompatPackage | None) -> str:
    family = family_driver(cuda)
    parts = [f"Update the NVIDIA driver to {family} or newer, which runs every CUDA {parse_version(cuda)[0]}.x build"]
    if package is not None and not package.is_on_path:
        parts.append(f"or, on data-center cards, start with `LD_LIBRARY_PATH={package.folder}`")
    else:
        major, minor = (*parse_version(cuda), 0)[:2]
        parts.append(f"or, on data-center cards, install the package cuda-compat-{major}-{minor}")
    return f"{', '.join(parts)}; or: {_install(driver_cuda)}"


def _install(driver_cuda: str | None) -> str:
    newest = f" for CUDA {driver_cuda} or older, which this driver runs" if driver_cuda else ""
    return f"Install a CUDA build of torch{newest}: {INSTALL}."


def _facts(build: TorchBuild | None, holds: Compatibility | None) -> dict[str, Fact]:
    return {
        "torch_version": build.version if build else None,
        "torch_cuda": build.cuda_version if build else None,
        "compatibility": None if holds is None else str(holds),
    }
