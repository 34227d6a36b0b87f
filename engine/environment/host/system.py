"""The check of the operating system: distribution, kernel and C library."""

from __future__ import annotations

import platform
from dataclasses import dataclass

from engine.environment.check import Check, CheckStatus, Finding

# PyTorch's wheels for Linux are tagged manylinux_2_28: they need this version of glibc or a newer one (PEP 600).
MIN_GLIBC = (2, 28)


@dataclass(frozen=True)
class System:
    """`kernel` is the release, `libc` and its version are empty where Python cannot tell (musl, for one)."""

    distribution: str
    name: str
    kernel: str
    libc: str
    libc_version: str
    machine: str


def os_check() -> Check:
    """`host.os`."""
    expected = f"Linux with glibc {'.'.join(map(str, MIN_GLIBC))} or newer"
    return Check("host.os", "Operating system", expected, lambda: judge_system(read_system()))


def read_system() -> System:
    """What this process runs on."""
    libc, libc_version = platform.libc_ver()
    try:
        distribution = platform.freedesktop_os_release()["PRETTY_NAME"]
    except OSError:
        distribution = ""
    return System(distribution, platform.system(), platform.release(), libc, libc_version, platform.machine())


def judge_system(system: System) -> Finding:
    """Warn about anything but Linux, and about a C library that PyTorch's wheels do not run on."""
    libc = f"{system.libc} {system.libc_version}".strip()
    parts = (system.distribution, f"{system.name} {system.kernel}", libc, system.machine)
    observed = ", ".join(part for part in parts if part)
    facts = {
        "distribution": system.distribution or None,
        "kernel": system.kernel,
        "libc": libc or None,
        "machine": system.machine,
    }
    if system.name != "Linux":
        remedy = "Run the console on Linux, the only system it is tested on."
        return Finding(CheckStatus.WARN, observed, remedy, facts)
    if system.libc != "glibc" or _numbers(system.libc_version) < MIN_GLIBC:
        remedy = (
            "PyTorch's wheels do not run on this C library: move to a distribution with glibc 2.28 or newer (Debian "
            "10, Ubuntu 20.04, RHEL 8 and later), or use a container image of one, such as python:3.11-slim."
        )
        return Finding(CheckStatus.WARN, observed if libc else f"{observed}, no glibc", remedy, facts)
    return Finding(CheckStatus.PASS, observed, facts=facts)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdecimal())
