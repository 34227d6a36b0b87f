"""Does the installed torch carry machine code for each GPU."""

from __future__ import annotations

import re
from collections.abc import Sequence

from engine.environment.check import CheckStatus, Finding
from engine.environment.gpu.devices import dotted
from engine.environment.gpu.each import judge_each, severity, skip
from engine.environment.gpu.probing import ProbedGpu, ProbeReading
from engine.environment.gpu.torch_build import INSTALL
from engine.environment.profile import GpuProfile

Capability = tuple[int, int]


def judge_arch(reading: ProbeReading, profile: GpuProfile) -> Finding:
    """Every GPU's compute capability against what torch was built for."""
    if not reading.arch_list:
        return skip(f"the architectures that torch was built for are not told: {reading.error}")
    if not reading.gpus:
        return skip(f"no GPU to compare with: {reading.error}")
    return judge_each(reading.gpus, lambda gpu: _judge(gpu, reading.arch_list, profile))


def find_code(capability: Capability, arch_list: Sequence[str]) -> str | None:
    """The entry of torch's list that runs on the card; None where none does.

    Machine code runs within its major version on the same or a later minor one, and PTX (`compute_`) is compiled for
    any later card, unless its name ends in `a`: then only on exactly that one, or in `f`: on that family, which here
    means the same major version (NVIDIA's CUDA programming guide, "Compute Capabilities",
    https://docs.nvidia.com/cuda/cuda-c-programming-guide/).
    """
    code = [entry for entry in arch_list if _fits(entry, capability)]
    return max(code, key=lambda entry: (entry.startswith("sm_"), _parse(entry)), default=None)


def _fits(entry: str, capability: Capability) -> bool:
    kind, built, suffix = _parse(entry)
    if kind == "" or built > capability:
        return False
    if suffix == "a":
        return built == capability
    return built[0] == capability[0] or (kind == "compute" and suffix == "")


def _parse(entry: str) -> tuple[str, Capability, str]:
    """`sm_90a` as ("sm", (9, 0), "a"); the last digit is the minor version."""
    found = re.fullmatch(r"(sm|compute)_(\d+)(\d)([af]?)", entry)
    return (found[1], (int(found[2]), int(found[3])), found[4]) if found else ("", (0, 0), "")


def _judge(gpu: ProbedGpu, arch_list: Sequence[str], profile: GpuProfile) -> Finding:
    if gpu.capability is None:
        return skip(f"compute capability not told: {gpu.error}")
    shown = dotted(gpu.capability)
    code = find_code(gpu.capability, arch_list)
    if code is None:
        observed = f"compute capability {shown}, and torch has code for {', '.join(arch_list)} only"
        is_old = gpu.capability < min((_parse(entry)[1] for entry in arch_list), default=(0, 0))
        which = "an older torch that still carries it" if is_old else "a newer torch or a build with a newer CUDA"
        remedy = f"Install {which} ({INSTALL}), or use another GPU: this build has no kernel for {shown}."
        return Finding(severity(profile), observed, remedy, {"torch_code": None})
    how = "" if code.startswith("sm_") else ", compiled by the driver at first use"
    return Finding(CheckStatus.PASS, f"compute capability {shown} runs torch's {code}{how}", facts={"torch_code": code})
