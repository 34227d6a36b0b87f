"""The environment report: all checks of this machine at one moment, and the texts it can be copied as."""

from __future__ import annotations

import dataclasses
import json
import platform
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from engine.clock import Clock, SystemClock
from engine.environment.check import Check, CheckResult, CheckStatus, run_checks
from engine.environment.containers import container_checks
from engine.environment.gpu import gpu_checks
from engine.environment.host import host_checks
from engine.environment.python import package_version, python_checks, read_torch_build
from engine.telemetry.nvml import Nvml

WORST_FIRST = (CheckStatus.FAIL, CheckStatus.ERROR, CheckStatus.WARN, CheckStatus.PASS)


@dataclass(frozen=True)
class EnvironmentReport:
    """The results of one run; `taken_at_s` counts seconds since the epoch."""

    checks: tuple[CheckResult, ...]
    taken_at_s: float

    @property
    def verdict(self) -> CheckStatus:
        """The worst status of any check. Skips do not count; with nothing else the verdict is a skip too."""
        present = {check.status for check in self.checks}
        return next((status for status in WORST_FIRST if status in present), CheckStatus.SKIP)

    def counts(self) -> dict[CheckStatus, int]:
        """How many checks ended in each status, zeros included."""
        found = Counter(check.status for check in self.checks)
        return {status: found[status] for status in CheckStatus}


def all_checks(home: Path, nvml: Nvml) -> tuple[Check, ...]:
    """Every check in the order of the report."""
    return (*host_checks(home), *python_checks(), *gpu_checks(nvml), *container_checks())


def collect_report(home: Path, nvml: Nvml, timeout_s: float = 10.0, clock: Clock | None = None) -> EnvironmentReport:
    """Run every check, all at once; takes at most about `timeout_s` seconds, whatever hangs."""
    clock = clock or SystemClock()
    taken_at_s = clock.wall()
    return EnvironmentReport(run_checks(all_checks(home, nvml), timeout_s, clock), taken_at_s)


def versions(nvml: Nvml) -> dict[str, str | None]:
    """Versions by component, None for what is not here. `torch_cuda` is what torch was built with.

    Raises:
        OSError: torch is installed but its files cannot be read.
    """
    build = read_torch_build()
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


def to_json(report: EnvironmentReport) -> str:
    """The report as one JSON object: verdict, taken_at (ISO 8601, UTC), taken_at_s, counts, checks."""
    return json.dumps(
        {
            "verdict": report.verdict,
            "taken_at": _iso(report.taken_at_s),
            "taken_at_s": report.taken_at_s,
            "counts": report.counts(),
            "checks": [dataclasses.asdict(check) for check in report.checks],
        },
        indent=2,
        ensure_ascii=False,
    )


def to_markdown(report: EnvironmentReport) -> str:
    """The report as a Markdown table, worst first, for an issue or a ticket."""
    rows = [
        (check.status.upper(), check.title, check.expected, check.observed, check.remedy or "")
        for check in sort_worst_first(report.checks)
    ]
    lines = [
        f"## Environment: {report.verdict}",
        "",
        f"Taken {_iso(report.taken_at_s)}.",
        "",
        "| Status | Check | Expected | Observed | Remedy |",
        "|---|---|---|---|---|",
        *("| " + " | ".join(map(_cell, row)) + " |" for row in rows),
    ]
    return "\n".join(lines) + "\n"


def to_text(report: EnvironmentReport) -> str:
    """The report for a terminal: a line a check in their order, remedies below them, the verdict last."""
    lines = []
    for check in report.checks:
        lines.append(f"{check.status.upper():<5}  {check.title}: {check.observed}")
        if check.remedy:
            lines.append(f"       -> {check.remedy}")
    counted = ", ".join(f"{number} {status}" for status, number in report.counts().items() if number)
    return "\n".join([*lines, "", f"Verdict: {report.verdict} ({counted})"]) + "\n"


def sort_worst_first(checks: tuple[CheckResult, ...]) -> list[CheckResult]:
    """What needs attention on top, skips last, otherwise in the order given."""
    order = (*WORST_FIRST, CheckStatus.SKIP)
    return sorted(checks, key=lambda check: order.index(check.status))


def _iso(epoch_s: float) -> str:
    return datetime.fromtimestamp(epoch_s, UTC).isoformat(timespec="seconds")


def _cell(text: str) -> str:
    """One table cell: no line breaks, and no pipe that would end it."""
    return " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|")
