"""Checks of the operating system, the processor, memory and disk."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import psutil

from engine.environment.check import Check, CheckStatus, Finding, format_gb, judge_at_least
from engine.telemetry.cgroup import CgroupMemory, read_cgroup_memory
from engine.telemetry.host import read_disk

GB = 10**9
MIN_CORES = 2
MEMORY_WARN_BYTES, MEMORY_FAIL_BYTES = 4 * GB, 1 * GB
DISK_WARN_BYTES, DISK_FAIL_BYTES = 10 * GB, 2 * GB

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


def host_checks(home: Path, cpuinfo: Path = Path("/proc/cpuinfo")) -> tuple[Check, ...]:
    """The checks of this host; `home` is the console's folder, which may not exist yet."""
    disk_expected = f"at least {format_gb(DISK_WARN_BYTES)} free for weights and stores"
    memory_expected = f"at least {format_gb(MEMORY_WARN_BYTES)} available to this process"
    return (
        Check("host.os", "Operating system", "Linux", check_os),
        Check("host.cpu", "Processor", f"{MIN_CORES} cores, AVX2 on x86", lambda: check_cpu(cpuinfo)),
        Check("host.memory", "Memory", memory_expected, check_memory),
        Check("host.disk", "Disk at the console's folder", disk_expected, lambda: check_disk(home)),
    )


def check_os() -> Finding:
    """Which system, kernel and C library; anything but Linux is a warning."""
    libc = " ".join(part for part in platform.libc_ver() if part)
    parts = (_distribution(), f"{platform.system()} {platform.release()}", libc, platform.machine())
    observed = ", ".join(part for part in parts if part)
    if platform.system() == "Linux":
        return Finding(CheckStatus.PASS, observed)
    return Finding(CheckStatus.WARN, observed, "Run the console on Linux, the only system it is tested on.")


def check_cpu(cpuinfo: Path) -> Finding:
    """Cores that this process may use, and the instruction sets that matter."""
    num_cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        isa = notable_isa(cpuinfo.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        isa = None
    shown = "unknown" if isa is None else " ".join(isa) or "none of note"
    return judge_cpu(num_cores, isa, f"{num_cores} cores for this process; instruction sets: {shown}")


def judge_cpu(num_cores: int, isa: tuple[str, ...] | None, observed: str) -> Finding:
    """Warn about one core, and about a processor known to have no vector unit worth the name."""
    if num_cores < MIN_CORES:
        remedy = f"Give the process {MIN_CORES} or more cores: with one, generation starves the pages."
        return Finding(CheckStatus.WARN, observed, remedy)
    if isa is not None and not set(isa) & {"avx2", "avx512f", "neon"}:
        remedy = "Use a processor with AVX2 (2013 or later), or a virtual machine type that passes it through."
        return Finding(CheckStatus.WARN, observed, remedy)
    return Finding(CheckStatus.PASS, observed)


def notable_isa(cpuinfo: str) -> tuple[str, ...]:
    """The notable instruction sets in the text of /proc/cpuinfo, x86 or ARM, in a fixed order."""
    for line in cpuinfo.splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features"):
            flags = set(value.split())
            return tuple(dict.fromkeys(name for flag, name in NOTABLE_ISA.items() if flag in flags))
    return ()


def check_memory() -> Finding:
    """Memory that this process can still take."""
    return judge_memory(psutil.virtual_memory().available, read_cgroup_memory())


def judge_memory(host_available_bytes: int, limit: CgroupMemory | None) -> Finding:
    """The smaller of what the host has and what the cgroup limit leaves."""
    available = host_available_bytes if limit is None else min(host_available_bytes, limit.available_bytes)
    observed = f"{format_gb(available)} available"
    if limit is not None:
        observed += f" (host {format_gb(host_available_bytes)}, limit {format_gb(limit.limit_bytes)})"
    status = judge_at_least(available, MEMORY_WARN_BYTES, MEMORY_FAIL_BYTES)
    if status is CheckStatus.PASS:
        return Finding(status, observed)
    is_limited = available < host_available_bytes
    remedy = "Raise the container's memory limit." if is_limited else "Stop other programs or add memory."
    return Finding(status, observed, remedy)


def check_disk(home: Path) -> Finding:
    """Free space where the console keeps weights and stores."""
    _, free = read_disk(home)
    return judge_disk(home, free)


def judge_disk(home: Path, free_bytes: int | None) -> Finding:
    """Enough free space, or the folder that has too little of it."""
    remedy = f"Free space under {home}, or set CONSOLE_HOME to a folder on a larger disk."
    if free_bytes is None:
        return Finding(CheckStatus.FAIL, f"{home} cannot be read", remedy)
    status = judge_at_least(free_bytes, DISK_WARN_BYTES, DISK_FAIL_BYTES)
    observed = f"{format_gb(free_bytes)} free at {home}"
    return Finding(status, observed, None if status is CheckStatus.PASS else remedy)


def _distribution() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except OSError:
        return ""
