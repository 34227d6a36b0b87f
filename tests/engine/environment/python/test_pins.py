from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.environment.check import CheckStatus, Finding
from engine.environment.python.distributions import Distribution, Installed, read_installed
from engine.environment.python.pins import compare_pins, judge_pins, read_pins


def judge(file: Path, text: str, installed: Installed) -> Finding:
    file.write_text(text, encoding="utf-8")
    return judge_pins(read_pins(file), file, installed)


def test_local_versions_meet_a_public_pin() -> None:
    assert compare_pins(["torch==2.13.0"], {"torch": "2.13.0+cpu"}) == []


@pytest.mark.parametrize(
    ("pin", "text", "is_missing"),
    [
        ("numpy==2.4.6", "numpy 2.4.5, pinned ==2.4.6", False),
        ("Typing_Extensions==1", "Typing_Extensions is not installed, pinned ==1", True),
        ("no pin at all", "'no pin at all' is not a requirement that can be read", False),
    ],
)
def test_each_mismatch_is_named(pin: str, text: str, is_missing: bool) -> None:
    (mismatch,) = compare_pins([pin], {"numpy": "2.4.5"})
    assert (mismatch.text, mismatch.is_missing) == (text, is_missing)


def test_names_compare_in_their_canonical_form() -> None:
    versions = {"prometheus-client": "1", "nvidia-ml-py": "2"}
    assert compare_pins(["Prometheus_Client==1", "nvidia.ml.py==2"], versions) == []


def test_a_pin_for_another_system_is_not_needed() -> None:
    assert compare_pins(["pywin32==1; sys_platform == 'never'"], {}) == []


@given(st.lists(st.tuples(st.integers(0, 99), st.integers(0, 99), st.integers(0, 99)), max_size=5))
def test_exact_pins_of_what_is_installed_are_met(versions: list[tuple[int, int, int]]) -> None:
    installed = {f"package-{index}": ".".join(map(str, version)) for index, version in enumerate(versions)}
    assert compare_pins([f"{name}=={version}" for name, version in installed.items()], installed) == []
    assert len(compare_pins([f"{name}==100" for name in installed], installed)) == len(versions)


def test_pins_that_are_met_pass(tmp_path: Path) -> None:
    installed = read_installed()
    text = f"# pins\n--no-binary :none:\n\npsutil=={installed.versions['psutil']}   # readings\n"
    finding = judge(tmp_path / "requirements.txt", text, installed)
    assert (finding.status, finding.observed) == (CheckStatus.PASS, "all 1 pins are met")


def test_the_facts_are_all_that_is_installed(tmp_path: Path) -> None:
    installed = Installed({"b": Distribution("b", "2"), "a": Distribution("a", "1+cpu")})
    facts = {"package.a": "1+cpu", "package.b": "2"}
    assert judge(tmp_path / "requirements.txt", "a==1\n", installed).facts == facts
    assert judge(tmp_path / "requirements.txt", "c==1\n", installed).facts == facts


def test_another_version_warns_and_a_missing_package_fails(tmp_path: Path) -> None:
    file, installed = tmp_path / "requirements.txt", Installed({"a": Distribution("a", "1")})
    finding = judge(file, "a==2\n", installed)
    assert (finding.status, finding.observed) == (CheckStatus.WARN, "a 1, pinned ==2")
    assert finding.remedy == f"{sys.executable} -m pip install -r {file}"
    finding = judge(file, "a==2\nno-such-package-here==1.0\n", installed)
    assert finding.status is CheckStatus.FAIL
    assert finding.observed == "no-such-package-here is not installed, pinned ==1.0; a 1, pinned ==2"


def test_no_requirements_file_is_a_skip_with_the_reason(tmp_path: Path) -> None:
    file = tmp_path / "requirements.txt"
    finding = judge_pins(read_pins(file), file, Installed({}))
    assert finding.status is CheckStatus.SKIP
    assert "does not exist" in finding.observed
