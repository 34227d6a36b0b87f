from __future__ import annotations

import json
from pathlib import Path

import pytest

from engine.environment import CheckResult, CheckStatus, EnvironmentReport, __main__
from engine.environment.__main__ import main
from engine.telemetry import Nvml


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> list[CheckStatus]:
    """The statuses that the next report has; nothing of this machine is asked."""
    statuses = [CheckStatus.PASS]

    def collect(home: Path, nvml: Nvml) -> EnvironmentReport:
        checks = tuple(CheckResult("a.b", "A", "b", str(home), status, None, 0.0) for status in statuses)
        return EnvironmentReport(checks, 0.0)

    monkeypatch.setattr(__main__, "collect_report", collect)
    return statuses


@pytest.mark.parametrize(("status", "code"), [("pass", 0), ("warn", 0), ("error", 0), ("skip", 0), ("fail", 1)])
def test_exit_code(found: list[CheckStatus], status: str, code: int) -> None:
    found.append(CheckStatus(status))
    assert main([]) == code


def test_text_is_the_default(found: list[CheckStatus], capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    main(["--home", str(tmp_path)])
    assert capsys.readouterr().out == f"PASS   A: {tmp_path}\n\nVerdict: pass (1 pass)\n"


def test_json(found: list[CheckStatus], capsys: pytest.CaptureFixture[str]) -> None:
    main(["--json"])
    assert json.loads(capsys.readouterr().out)["verdict"] == "pass"


def test_the_home_of_the_settings_is_used(
    found: list[CheckStatus],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("CONSOLE_HOME", str(tmp_path))
    main([])
    assert str(tmp_path) in capsys.readouterr().out


def test_a_bad_setting_is_told_and_ends_in_2(
    found: list[CheckStatus], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONSOLE_PORT", "0")
    assert main([]) == 2
    assert "CONSOLE_PORT" in capsys.readouterr().err
