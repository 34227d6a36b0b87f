"""The check of the processor: how much of it this process gets, and what its instructions can do."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path

from engine.config import load_settings
from engine.environment.check import Check, CheckStatus, Finding, worst
from engine.environment.context import CheckContext
from engine.environment.host.procfs import read_text
from engine.environment.host.sizes import format_cores, wanted
from engine.environment.profile import HostProfile
from engine.errors import SettingsError
from engine.telemetry.cgroup import CgroupCpus, read_cgroup_cpus

# The instruction sets that matrix kernels look for, by the kernel's names for them.
NOTABLE_ISA = {
    "avx2": "avx2",
    "avx512f": "avx512f",
    "avx512_vnni": "vnni",
    "avx_vnni": "vnni",
    "avx512_bf16": "bf16",
    "amx_bf16": "bf16",
    "bf16": "bf16",
    "amx_tile": "amx",
    "asimd": "neon",
    "sve": "sve",
}


@dataclass(frozen=True)
class Processor:
    """`num_allowed` are the processors that affinity allows, `quota` is their time that a cgroup allows.

    `flags` are the instruction sets in the kernel's names, None where they cannot be read. `num_threads` is what torch
    will start.
    """

    model: str | None
    num_allowed: int
    quota: CgroupCpus | None
    is_x86: bool
    flags: frozenset[str] | None
    num_threads: int

    @property
    def num_cores(self) -> float:
        """Processors' time for this process; 1.5 is one and a half."""
        return min(self.num_allowed, self.quota.num_cpus) if self.quota else self.num_allowed

    @property
    def isa(self) -> tuple[str, ...]:
        """The notable instruction sets in a fixed order."""
        return tuple(dict.fromkeys(name for flag, name in NOTABLE_ISA.items() if flag in (self.flags or ())))


def cpu_check(context: CheckContext) -> Check:
    """`host.cpu`."""
    host, root = context.profile.host, context.root
    expected = host.cores.describe("cores")
    if host.isa:
        expected += f"; {', '.join(host.isa)} on x86"
    return Check("host.cpu", "Processor", expected, lambda: judge_processor(read_processor(root), host))


def read_processor(root: Path = Path("/")) -> Processor:
    """The processor, and this process's part of it."""
    cpuinfo = _fields(read_text(root / "proc/cpuinfo") or "")
    flags = cpuinfo.get("flags", cpuinfo.get("Features"))
    num_allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Processor(
        model=cpuinfo.get("model name"),
        num_allowed=num_allowed,
        quota=read_cgroup_cpus(root),
        is_x86="flags" in cpuinfo,
        flags=None if flags is None else frozenset(flags.split()),
        num_threads=_num_threads() or num_allowed,
    )


def judge_processor(processor: Processor, host: HostProfile) -> Finding:
    """The cores against their bound, the instruction sets of an x86 processor against the profile's, and torch's
    threads against a quota: threads beyond it use it up early in each period, and then all of them stand still."""
    remedies = []
    status = host.cores.judge(processor.num_cores)
    if status is not CheckStatus.PASS:
        remedies.append(_more_cores(processor, wanted(host.cores)))
    has = {*processor.isa, *(processor.flags or ())}
    missing = [name for name in host.isa if name not in has] if processor.is_x86 else []
    if missing:
        remedies.append(
            f"Use a processor with {', '.join(missing)}; in a virtual machine pass the host's through (QEMU `-cpu "
            "host`, libvirt `host-passthrough`, in a cloud a newer machine type)."
        )
    quota = processor.quota
    is_oversubscribed = quota is not None and processor.num_threads > math.ceil(quota.num_cpus)
    if quota is not None and is_oversubscribed:
        remedies.append(f"Set CONSOLE_THREADS={math.ceil(quota.num_cpus)}: more threads than the quota are throttled.")
    status = worst((status, CheckStatus.WARN if missing or is_oversubscribed else CheckStatus.PASS))
    facts = {
        "model": processor.model,
        "cores": processor.num_cores,
        "isa": None if processor.flags is None else " ".join(processor.isa),
    }
    return Finding(status, _describe(processor), " ".join(remedies) or None, facts)


def _describe(processor: Processor) -> str:
    isa = "unknown" if processor.flags is None else " ".join(processor.isa) or "none of note"
    model = f"{processor.model}, " if processor.model else ""
    observed = f"{model}{format_cores(processor.num_cores)} for this process; instruction sets: {isa}"
    if processor.quota is None:
        return observed
    return (
        f"{observed}; {processor.quota.at} allows {processor.quota.num_cpus:g} of {processor.num_allowed} processors, "
        f"torch would start {processor.num_threads} threads"
    )


def _more_cores(processor: Processor, num_wanted: float) -> str:
    if processor.quota is not None and processor.quota.num_cpus < processor.num_allowed:
        return (
            f"Raise the processor quota ({processor.quota.at}) to {format_cores(num_wanted)}: `docker update --cpus "
            f"{num_wanted:g} NAME`, in Kubernetes resources.limits.cpu, in a systemd unit CPUQuota={num_wanted:.0%}."
        )
    return (
        f"Give this process {format_cores(num_wanted)}: a larger machine, or a wider affinity (`taskset`, docker "
        "`--cpuset-cpus`)."
    )


def _fields(cpuinfo: str) -> dict[str, str]:
    """The first processor's lines."""
    pairs = (line.partition(":") for line in cpuinfo.split("\n\n", 1)[0].splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def _num_threads() -> int | None:
    """What the settings or OpenMP's variable say; None where they leave it to torch."""
    try:
        configured = load_settings().threads
    except SettingsError:
        configured = None
    openmp = os.environ.get("OMP_NUM_THREADS", "")
    return configured or (int(openmp) if openmp.isdecimal() and int(openmp) else None)
