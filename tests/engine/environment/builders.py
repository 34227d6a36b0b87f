"""Reports and checks as the tests of the report's machinery want them; nothing of this machine is asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from hypothesis import strategies as st

from engine.environment import report as report_module
from engine.environment.check import Check, CheckResult, CheckStatus, Fact, Finding
from engine.environment.context import CheckContext
from engine.environment.profile import Profile
from engine.environment.report import EnvironmentReport
from engine.telemetry.nvml import Nvml
from tests.engine.telemetry.fakes import FakeBinding, FakeGpu

FAMILY_NAMES = ("host", "python", "gpu", "containers", "kubernetes", "network")


def result(
    id: str = "host.memory",
    status: CheckStatus = CheckStatus.PASS,
    observed: str = "seen",
    remedy: str | None = None,
    facts: Mapping[str, Fact] | None = None,
    title: str = "A check",
) -> CheckResult:
    """How a check ended."""
    return CheckResult(id, title, "something", observed, status, remedy, 0.25, facts or {})


def report_of(*checks: CheckResult, taken_at_s: float = 1_700_000_000.0, profile: str = "laptop") -> EnvironmentReport:
    """A report of those results."""
    return EnvironmentReport(checks, taken_at_s, profile, taken_s=0.5)


def report_with(*statuses: CheckStatus) -> EnvironmentReport:
    """A report with one check a status, as `host.0`, `host.1` and so on."""
    return report_of(*(result(f"host.{index}", status) for index, status in enumerate(statuses)))


def check(id: str, run: Callable[[], Finding] | None = None, timeout_s: float = 5.0, is_deep: bool = False) -> Check:
    """A check that passes, unless `run` does something else."""
    return Check(id, id.title(), "to end", run or passing, timeout_s, is_deep)


def passing() -> Finding:
    return Finding(CheckStatus.PASS, "fine")


def finding(status: CheckStatus, observed: str = "seen") -> Callable[[], Finding]:
    """What a check of that status runs."""
    return lambda: Finding(status, observed, "Mend it.")


def use_checks(monkeypatch: pytest.MonkeyPatch, *checks: Check) -> None:
    """From now on these are all the checks there are, each in the family of its id."""

    def builder(family: str) -> Callable[[CheckContext], tuple[Check, ...]]:
        return lambda _context: tuple(check for check in checks if check.family == family)

    families = {name: (name.title(), builder(name)) for name in dict.fromkeys(check.family for check in checks)}
    monkeypatch.setattr(report_module, "FAMILIES", families)


def fake_nvml(*gpu_names: str) -> Nvml:
    """NVML of a machine with GPUs of these names."""
    gpus = [FakeGpu(f"GPU-{index}") for index in range(len(gpu_names))]
    for gpu, name in zip(gpus, gpu_names, strict=True):
        gpu.answers["nvmlDeviceGetName"] = name
    return Nvml(FakeBinding(*gpus))


def context(home: Path, nvml: Nvml | None = None) -> CheckContext:
    """A run's subject that asks for nothing in particular."""
    return CheckContext(Profile(title="a test"), home, nvml or fake_nvml())


facts = st.dictionaries(
    st.text(max_size=12),
    st.none() | st.booleans() | st.integers(-(10**18), 10**18) | st.floats(allow_nan=False) | st.text(max_size=12),
    max_size=4,
)
results = st.builds(
    CheckResult,
    id=st.builds("{}.{}".format, st.sampled_from((*FAMILY_NAMES, "other")), st.integers(0, 99)),
    title=st.text(max_size=20),
    expected=st.text(max_size=20),
    observed=st.text(max_size=60),
    status=st.sampled_from(CheckStatus),
    remedy=st.none() | st.text(max_size=60),
    taken_s=st.floats(0, 1e6),
    facts=facts,
)
reports = st.builds(
    EnvironmentReport,
    checks=st.lists(results, max_size=8, unique_by=lambda check: check.id).map(tuple),
    taken_at_s=st.floats(0, 4e9),
    profile=st.text(max_size=12),
    is_deep=st.booleans(),
    taken_s=st.floats(0, 1e6),
)
