from __future__ import annotations

import sys
from pathlib import Path

import pytest

from engine.environment.check import CheckStatus, run_checks
from engine.environment.context import CheckContext
from engine.environment.profile import Profile, PythonProfile
from engine.environment.python import python_checks, torch_build
from engine.telemetry.nvml import Nvml
from tests.engine.environment.python.planting import plant


def make_context(tmp_path: Path, min_version: str = "3.11") -> CheckContext:
    profile = Profile(title="Any machine", python=PythonProfile(min_version=min_version))
    return CheckContext(profile, tmp_path, Nvml())


def test_this_interpreter_has_what_the_console_pins(tmp_path: Path) -> None:
    checks = python_checks(make_context(tmp_path))
    assert [check.id for check in checks if not check.is_deep] == [
        "python.version",
        "python.venv",
        "python.pins",
        "python.conflicts",
        "python.torch",
    ]
    results = {result.id: result for result in run_checks(check for check in checks if not check.is_deep)}
    assert results["python.version"].status is CheckStatus.PASS
    assert results["python.torch"].status is CheckStatus.PASS
    assert CheckStatus.ERROR not in {result.status for result in results.values()}


def test_the_profile_is_what_the_version_is_judged_by(tmp_path: Path) -> None:
    version = python_checks(make_context(tmp_path, "99.1"))[0]
    assert version.expected == "99.1 or newer (the console needs 3.11, the profile 99.1)"
    assert version.run().status is CheckStatus.FAIL


def test_a_conflict_planted_beside_the_installed_packages_is_seen_by_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(tmp_path, "planted-app", "1.0", ["psutil<1"])
    monkeypatch.syspath_prepend(str(tmp_path))
    requirements = tmp_path / "requirements.txt"
    requirements.write_text("planted-app==2.0\nneither requirement\n", encoding="utf-8")
    checks = {check.id: check for check in python_checks(make_context(tmp_path), requirements)}
    pins, conflicts = checks["python.pins"].run(), checks["python.conflicts"].run()
    assert pins.status is CheckStatus.WARN
    assert "planted-app 1.0, pinned ==2.0" in pins.observed
    assert pins.facts["package.planted-app"] == "1.0"
    assert conflicts.status is CheckStatus.FAIL
    assert "planted-app 1.0 (<1, unmet)" in conflicts.observed
    assert f"{sys.executable} -m pip install 'psutil<1'" in (conflicts.remedy or "")


def test_torch_that_is_not_installed_is_not_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_build, "package_version", lambda name: None)
    finding = python_checks(make_context(tmp_path))[-1].run()
    assert (finding.status, finding.observed) == (CheckStatus.FAIL, "torch is not installed")


def test_building_the_checks_reads_nothing(tmp_path: Path) -> None:
    python_checks(make_context(tmp_path), tmp_path / "no such file")
    assert list(tmp_path.iterdir()) == []
