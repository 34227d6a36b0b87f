"""The environment report: what a machine was checked against, and how each check ended."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from engine.environment.check import Check, CheckResult, CheckStatus, run_checks, worst
from engine.environment.containers import container_checks
from engine.environment.context import CheckContext
from engine.environment.gpu import gpu_checks
from engine.environment.host import host_checks
from engine.environment.kubernetes import kubernetes_checks
from engine.environment.network import network_checks
from engine.environment.python import package_version, python_checks, read_torch_build
from engine.errors import ProfileError
from engine.telemetry.nvml import Nvml

# A family is the part of a check's id before the dot; in the order of the report.
FAMILIES: dict[str, tuple[str, Callable[[CheckContext], tuple[Check, ...]]]] = {
    "host": ("Host", host_checks),
    "python": ("Python", python_checks),
    "gpu": ("GPU", gpu_checks),
    "containers": ("Container engine", container_checks),
    "kubernetes": ("Kubernetes", kubernetes_checks),
    "network": ("Network", network_checks),
}


@dataclass(frozen=True)
class EnvironmentReport:
    """The results of one run; `taken_at_s` counts seconds since the epoch, `profile` is the name of what was asked,
    `versions` are those of `read_versions`, `machine` is the host's name."""

    checks: tuple[CheckResult, ...]
    taken_at_s: float
    profile: str
    is_deep: bool = False
    taken_s: float = 0.0
    versions: Mapping[str, str | None] = field(default_factory=dict)
    machine: str = ""

    @property
    def verdict(self) -> CheckStatus:
        """The worst status of any check. Skips do not count; with nothing else the verdict is a skip too."""
        return worst(check.status for check in self.checks)

    @property
    def families(self) -> dict[str, tuple[CheckResult, ...]]:
        """The results by family, in the order of the report."""
        present = dict.fromkeys(check.family for check in self.checks)
        return {name: tuple(check for check in self.checks if check.family == name) for name in present}

    def counts(self) -> dict[CheckStatus, int]:
        """How many checks ended in each status, zeros included."""
        found = Counter(check.status for check in self.checks)
        return {status: found[status] for status in CheckStatus}


def plan_checks(
    context: CheckContext, families: Collection[str] | None = None, is_deep: bool = False
) -> tuple[Check, ...]:
    """The checks to run, in the order of the report: of all families or the named, without the deep ones unless asked.

    Raises:
        ProfileError: there is no such family, or none at all is named.
    """
    if families is not None and not families:
        raise ProfileError(f"no family is named, so nothing would be checked: choose of {', '.join(FAMILIES)}")
    if unknown := set(families or ()) - set(FAMILIES):
        raise ProfileError(f"there is no family {', '.join(sorted(unknown))}: choose of {', '.join(FAMILIES)}")
    chosen = [build for name, (_, build) in FAMILIES.items() if families is None or name in families]
    return tuple(check for build in chosen for check in build(context) if is_deep or not check.is_deep)


def collect_report(
    context: CheckContext,
    profile: str,
    families: Collection[str] | None = None,
    is_deep: bool = False,
    on_result: Callable[[CheckResult], None] | None = None,
) -> EnvironmentReport:
    """Run the checks, all at once; it takes as long as the longest timeout among them, whatever hangs.

    Raises:
        ProfileError: there is no such family.
        RunCancelledError: `context.cancelled` was set.
    """
    clock = context.clock
    taken_at_s, started_s = clock.wall(), clock.monotonic()
    results = run_checks(plan_checks(context, families, is_deep), clock, on_result, context.cancelled.is_set)
    taken_s = clock.monotonic() - started_s
    return EnvironmentReport(
        results, taken_at_s, profile, is_deep, taken_s, read_versions(context.nvml), platform.node()
    )


def read_versions(nvml: Nvml) -> dict[str, str | None]:
    """Versions by component, None for what is not here. `torch_cuda` is what torch was built with."""
    try:
        build = read_torch_build()
    except OSError:  # its files cannot be read, which the check of torch says
        build = None
    inventory = nvml.read()
    return {
        "python": platform.python_version(),
        "torch": build.version if build else None,
        "torch_cuda": build.cuda_version if build else None,
        "nvidia_driver": inventory.driver_version,
        "driver_cuda": inventory.cuda_driver_version,
        "transformers": package_version("transformers"),
        "safetensors": package_version("safetensors"),
        "streamlit": package_version("streamlit"),
        "fastapi": package_version("fastapi"),
    }
