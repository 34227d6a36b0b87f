from __future__ import annotations

from pathlib import Path

import pytest

from engine.config import default_home
from engine.environment import gate as gate_module
from engine.environment.check import CheckStatus
from engine.environment.context import CheckContext
from engine.environment.gate import refuse_unfit, require
from engine.environment.profile import Profile
from engine.environment.report import EnvironmentReport
from engine.errors import ConsoleError, EnvironmentUnfitError, ProfileError
from engine.telemetry.nvml import Nvml
from tests.engine.environment.builders import check, fake_nvml, finding, report_of, report_with, result, use_checks
from tests.engine.telemetry.fakes import FakeBinding


def statuses(monkeypatch: pytest.MonkeyPatch, **found: str) -> None:
    use_checks(
        monkeypatch,
        *(check(name.replace("_", "."), finding(CheckStatus(status), status)) for name, status in found.items()),
    )


def test_a_fit_machine_passes_with_its_report(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    statuses(monkeypatch, host_a="pass", gpu_b="warn", gpu_c="skip")
    report = require("cpu-laptop", home=tmp_path, nvml=fake_nvml())
    assert (report.profile, report.verdict, len(report.checks)) == ("cpu-laptop", CheckStatus.WARN, 3)


def test_what_refuses_is_told_worst_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    statuses(monkeypatch, host_a="error", host_b="warn", gpu_c="fail", gpu_d="pass", gpu_e="fail")
    with pytest.raises(EnvironmentUnfitError) as refused:
        require("cpu-laptop", home=tmp_path, nvml=fake_nvml())
    assert [check.id for check in refused.value.failed] == ["gpu.c", "gpu.e", "host.a"]
    assert str(refused.value) == (
        "this machine is not fit for cpu-laptop:\n"
        "- Gpu.C (fail): fail. Mend it.\n"
        "- Gpu.E (fail): fail. Mend it.\n"
        "- Host.A (error): error. Mend it."
    )
    assert isinstance(refused.value, ConsoleError)
    assert (refused.value.status, refused.value.code) == (409, "environment_unfit")


@pytest.mark.parametrize(
    ("observed", "remedy", "line"),
    [
        ("8 GB free", "Free 2 GB.", "- A check (fail): 8 GB free. Free 2 GB."),
        ("No driver is installed.", "Install one.", "- A check (fail): No driver is installed. Install one."),
        ("broken", None, "- A check (fail): broken."),
    ],
)
def test_a_reason_reads_as_sentences(observed: str, remedy: str | None, line: str) -> None:
    report = report_of(result(status=CheckStatus.FAIL, observed=observed, remedy=remedy))
    with pytest.raises(EnvironmentUnfitError) as refused:
        refuse_unfit(report)
    assert str(refused.value).splitlines()[1] == line


@pytest.mark.parametrize(
    ("found", "is_strict", "is_fit"),
    [
        ("pass", False, True),
        ("skip", True, True),
        ("warn", False, True),
        ("warn", True, False),
        ("error", False, False),
        ("fail", False, False),
        ("fail", True, False),
    ],
)
def test_strict_refuses_warnings_too(found: str, is_strict: bool, is_fit: bool) -> None:
    report = report_with(CheckStatus.PASS, CheckStatus(found))
    if is_fit:
        refuse_unfit(report, is_strict)
        return
    with pytest.raises(EnvironmentUnfitError):
        refuse_unfit(report, is_strict)


def test_a_check_that_cannot_be_decided_is_no_reason_to_go(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def broken() -> object:
        raise OSError("the tool is gone")

    use_checks(monkeypatch, check("host.a", broken))  # type: ignore[arg-type]
    with pytest.raises(EnvironmentUnfitError, match="the tool is gone"):
        require("cpu-laptop", home=tmp_path, nvml=fake_nvml())


def test_only_the_families_that_matter_refuse(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    statuses(monkeypatch, host_a="fail", gpu_b="pass")
    report = require("cpu-laptop", home=tmp_path, nvml=fake_nvml(), families=["gpu"])
    assert [check.id for check in report.checks] == ["gpu.b"]


def test_a_gate_that_checks_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match="no family is named"):
        require("cpu-laptop", home=tmp_path, nvml=fake_nvml(), families=[])


def test_deep_checks_run_when_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    use_checks(monkeypatch, check("host.a"), check("host.slow", is_deep=True))
    nvml = fake_nvml()
    assert len(require("cpu-laptop", home=tmp_path, nvml=nvml).checks) == 1
    assert len(require("cpu-laptop", home=tmp_path, nvml=nvml, is_deep=True).checks) == 2


def test_a_profile_as_an_object_goes_by_its_title(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    statuses(monkeypatch, host_a="pass")
    assert require(Profile(title="My rack"), home=tmp_path, nvml=fake_nvml()).profile == "My rack"


def test_an_unknown_profile(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match="there is no profile 'x'"):
        require("x", home=tmp_path, nvml=fake_nvml())


def test_without_a_home_it_is_that_of_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[CheckContext] = []

    def collect(subject: CheckContext, *_: object) -> EnvironmentReport:
        seen.append(subject)
        return report_with(CheckStatus.PASS)

    monkeypatch.setattr(gate_module, "collect_report", collect)
    require("cpu-laptop", nvml=fake_nvml())
    assert seen[0].home == default_home()


@pytest.mark.parametrize("is_fit", [True, False])
def test_nvml_that_was_opened_here_is_closed(is_fit: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    binding = FakeBinding()
    monkeypatch.setattr(gate_module, "Nvml", lambda: Nvml(binding))

    def collect(subject: CheckContext, *_: object) -> EnvironmentReport:
        subject.nvml.read()
        return report_with(CheckStatus.PASS if is_fit else CheckStatus.FAIL)

    monkeypatch.setattr(gate_module, "collect_report", collect)
    if is_fit:
        require("cpu-laptop", home=tmp_path)
    else:
        with pytest.raises(EnvironmentUnfitError):
            require("cpu-laptop", home=tmp_path)
    assert [call for call in binding.calls if call in ("nvmlInit", "nvmlShutdown")] == ["nvmlInit", "nvmlShutdown"]
