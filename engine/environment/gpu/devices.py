"""The GPUs against the profile: how many there are, and which of them is too small or too old."""

from __future__ import annotations

from dataclasses import replace

from engine.environment.check import CheckStatus, Fact, Finding, format_gb
from engine.environment.gpu.container import GIVE_GPU, Container
from engine.environment.gpu.each import name_gpus, plural, severity, skip
from engine.environment.profile import GB, GpuProfile
from engine.telemetry.nvml import GpuInventory, GpuReading

# The compute capability from which torch computes in a dtype, NVIDIA's CUDA programming guide, "Compute Capabilities"
# (https://docs.nvidia.com/cuda/cuda-c-programming-guide/): half-precision arithmetic 5.3, bfloat16 and TF32 8.0,
# FP8 tensor cores 8.9, FP4 tensor cores 10.0.
DTYPE_CAPABILITY = {
    "float32": (3, 5),
    "float16": (5, 3),
    "int8": (6, 1),
    "bfloat16": (8, 0),
    "float8": (8, 9),
    "float4": (10, 0),
}


def judge_devices(inventory: GpuInventory, profile: GpuProfile, container: Container = Container.NONE) -> Finding:
    """Every card against what the profile asks of each, and the number of those that fit against its count."""
    if inventory.reason is not None:
        return _judge_none(inventory.reason, profile, container)
    broken = [gpu.index for gpu in inventory.gpus if not gpu.is_usable]
    misses = {gpu.index: found for gpu in inventory.gpus if (found := find_misses(gpu, profile))}
    fit = [gpu.index for gpu in inventory.gpus if gpu.index not in misses and gpu.index not in broken]
    observed = "; ".join(_describe(gpu, misses.get(gpu.index, [])) for gpu in inventory.gpus)
    facts = _facts(inventory)
    if broken:
        remedy = (
            f"Look for Xid errors of {name_gpus(broken)}: `sudo dmesg | grep -i xid`; reset it with "
            f"`sudo nvidia-smi --gpu-reset -i {broken[0]}` or restart the machine."
        )
        return Finding(severity(profile), observed, remedy, facts)
    status = profile.count.judge(len(fit))
    if not misses and status is CheckStatus.PASS:
        return _judge_headroom(inventory, profile, observed, facts)
    # A card that does not fit fails the check only where too few others do.
    status = CheckStatus.FAIL if not fit or status is CheckStatus.FAIL else CheckStatus.WARN
    return Finding(
        status,
        f"{len(fit)} of {plural(len(inventory.gpus), 'GPU')} fit: {observed}",
        _remedy(profile, [gpu for gpu in inventory.gpus if gpu.index in fit], misses),
        facts,
    )


def visible_gpus(inventory: GpuInventory, visible: str | None) -> GpuInventory:
    """The cards that CUDA programs of this environment see; `visible` is CUDA_VISIBLE_DEVICES. Only UUIDs are followed:
    numbers mean CUDA's own order, which the driver does not tell."""
    wanted = [name.strip() for name in (visible or "").split(",") if name.strip().startswith("GPU-")]
    if not wanted:
        return inventory
    gpus = tuple(gpu for gpu in inventory.gpus if any((gpu.uuid or "").startswith(name) for name in wanted))
    return replace(inventory, gpus=gpus) if gpus else inventory


def find_misses(gpu: GpuReading, profile: GpuProfile) -> list[str]:
    """What this card lacks; a value that the driver does not tell is not held against it."""
    found = []
    if gpu.memory_total_bytes is not None and profile.memory_gb.judge(gpu.memory_total_bytes / GB) is CheckStatus.FAIL:
        found.append(f"less than the {profile.memory_gb.require:g} GB asked for")
    if gpu.compute_capability is None:
        return found
    wanted = profile.compute_capability_min
    if wanted is not None and gpu.compute_capability < capability(wanted):
        found.append(f"compute capability below the {wanted} asked for")
    for dtype in profile.dtypes:
        needed = DTYPE_CAPABILITY[dtype]
        if gpu.compute_capability < needed:
            found.append(f"no {dtype} (needs compute capability {dotted(needed)})")
    return found


def capability(text: str) -> tuple[int, int]:
    """`9.0` as (9, 0)."""
    major, _, minor = text.partition(".")
    return int(major), int(minor.split(".", 1)[0] or 0)


def dotted(capability: tuple[int, int]) -> str:
    """(9, 0) as `9.0`."""
    return f"{capability[0]}.{capability[1]}"


def describe_gpu(gpu: GpuReading) -> str:
    """`0: NVIDIA H200, 150.8 GB, compute capability 9.0`, less what the driver cannot tell, then its error."""
    known = (
        gpu.name,
        None if gpu.memory_total_bytes is None else format_gb(gpu.memory_total_bytes),
        None if gpu.compute_capability is None else f"compute capability {dotted(gpu.compute_capability)}",
        gpu.error,
    )
    return f"{gpu.index}: " + ", ".join(part for part in known if part is not None)


def expect_devices(profile: GpuProfile) -> str:
    """What the profile asks for, in one line."""
    parts = [f"{profile.count.describe()} GPU(s)"]
    if profile.memory_gb.require or profile.memory_gb.recommend:
        parts.append(f"{profile.memory_gb.describe('GB')} each")
    if profile.compute_capability_min:
        parts.append(f"compute capability {profile.compute_capability_min} or newer")
    return ", ".join(parts + ([" and ".join(profile.dtypes)] if profile.dtypes else []))


def _judge_none(reason: str, profile: GpuProfile, container: Container) -> Finding:
    if not profile.is_required:
        return skip(reason)
    remedy = (
        "Use a machine with an NVIDIA GPU whose driver answers (`nvidia-smi`), or choose a profile that needs none, "
        "such as cpu-laptop."
    )
    if container in GIVE_GPU:
        remedy += f" If the host has a GPU: {GIVE_GPU[container]}"
    return Finding(CheckStatus.FAIL, f"no GPU: {reason}", remedy, {"num_gpus": 0})


def _judge_headroom(inventory: GpuInventory, profile: GpuProfile, observed: str, facts: dict[str, Fact]) -> Finding:
    """Every card fits; warn where one has less memory than recommended."""
    small = [
        gpu.index
        for gpu in inventory.gpus
        if gpu.memory_total_bytes is not None
        and profile.memory_gb.judge(gpu.memory_total_bytes / GB) is CheckStatus.WARN
    ]
    if not small:
        return Finding(CheckStatus.PASS, observed, facts=facts)
    remedy = (
        f"{name_gpus(small)} holds the weights with little room for contexts: use a card of at least "
        f"{profile.memory_gb.recommend:g} GB, shorter contexts, or quantized weights."
    )
    return Finding(CheckStatus.WARN, observed, remedy, facts)


def _describe(gpu: GpuReading, misses: list[str]) -> str:
    return describe_gpu(gpu) + (f" - {', '.join(misses)}" if misses else "")


def _remedy(profile: GpuProfile, fit: list[GpuReading], misses: dict[int, list[str]]) -> str:
    if misses and fit and profile.count.judge(len(fit)) is not CheckStatus.FAIL:
        # By UUID: CUDA counts its devices fastest first, NVML by their place on the bus.
        names = ",".join(gpu.uuid or str(gpu.index) for gpu in fit)
        return f"Keep to the cards that fit: start the console with `CUDA_VISIBLE_DEVICES={names}`."
    return (
        f"Use a machine with {expect_devices(profile)}, or choose a profile that asks for less "
        "(`python -m engine.environment --profile NAME`)."
    )


def _facts(inventory: GpuInventory) -> dict[str, Fact]:
    facts: dict[str, Fact] = {"num_gpus": len(inventory.gpus)}
    for gpu in inventory.gpus:
        facts[f"gpu{gpu.index}_name"] = gpu.name
        facts[f"gpu{gpu.index}_uuid"] = gpu.uuid
        facts[f"gpu{gpu.index}_memory_total_bytes"] = gpu.memory_total_bytes
    return facts
