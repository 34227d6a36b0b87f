from __future__ import annotations

import sys
from dataclasses import replace

import pytest

from engine.environment.check import CheckStatus
from engine.environment.profile import PythonProfile
from engine.environment.python.interpreter import (
    Interpreter,
    describe_min_version,
    find_min_version,
    judge_venv,
    judge_version,
    read_interpreter,
)

SYSTEM = Interpreter("3.11.7", "CPython", "/usr/bin/python3", "/usr", "/usr", is_conda=False)


def test_this_interpreter_runs_the_console() -> None:
    reading = read_interpreter()
    assert reading.version == ".".join(map(str, sys.version_info[:3]))
    assert judge_version(reading, PythonProfile()).status is CheckStatus.PASS


@pytest.mark.parametrize(
    ("version", "asked", "status"),
    [
        ("3.11.0", "3.9", CheckStatus.PASS),
        ("3.14.1", "3.11", CheckStatus.PASS),
        ("3.10.9", "3.9", CheckStatus.FAIL),
        ("3.11.9", "3.12", CheckStatus.FAIL),
        ("3.12.0", "3.12", CheckStatus.PASS),
        ("3.12.0", "3.12.1", CheckStatus.FAIL),
    ],
)
def test_version(version: str, asked: str, status: CheckStatus) -> None:
    profile = PythonProfile(min_version=asked)
    finding = judge_version(replace(SYSTEM, version=version), profile)
    assert finding.status is status
    assert finding.facts["version"] == version
    wanted = f"Install Python {find_min_version(profile)} or newer"
    assert (finding.remedy or "").startswith(wanted) is (status is CheckStatus.FAIL)


@pytest.mark.parametrize(
    ("asked", "text"),
    [
        ("3.11", "3.11 or newer"),
        ("3.9", "3.11 or newer (the console needs 3.11, the profile 3.9)"),
        ("3.12", "3.12 or newer (the console needs 3.11, the profile 3.12)"),
    ],
)
def test_both_bounds_are_told_where_they_differ(asked: str, text: str) -> None:
    assert describe_min_version(PythonProfile(min_version=asked)) == text


def test_venv_in_use() -> None:
    finding = judge_venv(replace(SYSTEM, prefix="/srv/console/.venv"))
    assert (finding.status, finding.observed) == (CheckStatus.PASS, "/srv/console/.venv")
    assert judge_venv(replace(SYSTEM, is_conda=True)).status is CheckStatus.PASS


def test_the_systems_python_warns() -> None:
    finding = judge_venv(SYSTEM)
    assert finding.status is CheckStatus.WARN
    assert "make run" in (finding.remedy or "")
