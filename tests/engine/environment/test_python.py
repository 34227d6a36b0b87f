from __future__ import annotations

import sys
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.environment import python
from engine.environment.check import CheckStatus, run_checks
from engine.environment.python import (
    TorchBuild,
    check_pins,
    check_venv,
    compare_pins,
    installed_versions,
    judge_version,
    package_version,
    parse_constant,
    python_checks,
    read_torch_build,
)

CUDA_BUILD = "from typing import Optional\n__version__ = '2.13.0+cu130'\ncuda: Optional[str] = '13.0'\nhip = None\n"
CPU_BUILD = "__version__ = '2.13.0+cpu'\ncuda: Optional[str] = None\n"


def test_this_interpreter_has_what_the_console_pins() -> None:
    results = run_checks(python_checks())
    assert [result.id for result in results] == ["python.version", "python.venv", "python.pins"]
    assert results[0].status is CheckStatus.PASS
    assert CheckStatus.ERROR not in {result.status for result in results}


@pytest.mark.parametrize(
    ("version", "status"),
    [((3, 11, 0), CheckStatus.PASS), ((3, 14, 1), CheckStatus.PASS), ((3, 10, 9), CheckStatus.FAIL)],
)
def test_version(version: tuple[int, int, int], status: CheckStatus) -> None:
    finding = judge_version(version)
    assert finding.status is status
    assert ("3.11" in (finding.remedy or "")) is (status is CheckStatus.FAIL)


def test_venv_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "prefix", "/srv/console/.venv")
    assert check_venv().status is CheckStatus.PASS


def test_the_systems_python_warns_unless_it_is_condas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "prefix", sys.base_prefix)
    monkeypatch.delenv("CONDA_PREFIX", raising=False)
    finding = check_venv()
    assert finding.status is CheckStatus.WARN
    assert "make run" in (finding.remedy or "")
    monkeypatch.setenv("CONDA_PREFIX", sys.prefix)
    assert check_venv().status is CheckStatus.PASS


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
    assert (
        compare_pins(["Prometheus_Client==1", "nvidia.ml.py==2"], {"prometheus-client": "1", "nvidia-ml-py": "2"}) == []
    )


def test_a_pin_for_another_system_is_not_needed() -> None:
    assert compare_pins(["pywin32==1; sys_platform == 'never'"], {}) == []


@given(st.lists(st.tuples(st.integers(0, 99), st.integers(0, 99), st.integers(0, 99)), max_size=5))
def test_exact_pins_of_what_is_installed_are_met(versions: list[tuple[int, int, int]]) -> None:
    installed = {f"package-{index}": ".".join(map(str, version)) for index, version in enumerate(versions)}
    assert compare_pins([f"{name}=={version}" for name, version in installed.items()], installed) == []
    assert len(compare_pins([f"{name}==100" for name in installed], installed)) == len(versions)


def test_pins_that_are_met_pass(tmp_path: Path) -> None:
    file = tmp_path / "requirements.txt"
    file.write_text(
        f"# pins\n--no-binary :none:\n\npsutil=={metadata.version('psutil')}   # readings\n", encoding="utf-8"
    )
    finding = check_pins(file)
    assert (finding.status, finding.observed) == (CheckStatus.PASS, "all 1 pins are met")


def test_another_version_warns_and_a_missing_package_fails(tmp_path: Path) -> None:
    file = tmp_path / "requirements.txt"
    file.write_text("psutil==0.0.1\n", encoding="utf-8")
    finding = check_pins(file)
    assert finding.status is CheckStatus.WARN
    assert "psutil" in finding.observed
    assert finding.remedy == f"{sys.executable} -m pip install -r {file}"
    file.write_text("psutil==0.0.1\nno-such-package-here==1.0\n", encoding="utf-8")
    finding = check_pins(file)
    assert finding.status is CheckStatus.FAIL
    assert "psutil" in finding.observed
    assert "no-such-package-here is not installed" in finding.observed


def test_no_requirements_file_is_a_skip_with_the_reason(tmp_path: Path) -> None:
    finding = check_pins(tmp_path / "requirements.txt")
    assert finding.status is CheckStatus.SKIP
    assert "does not exist" in finding.observed


def test_installed_versions_are_those_of_metadata() -> None:
    assert installed_versions()["psutil"] == metadata.version("psutil") == package_version("psutil")
    assert package_version("no-such-package-here") is None


@pytest.mark.parametrize(
    ("source", "cuda"),
    [
        (CUDA_BUILD, "13.0"),
        (CPU_BUILD, None),
        ("cuda = '12.8'\n", "12.8"),
        ("", None),
        ("cuda = f()\n", None),
    ],
)
def test_built_cuda_version_is_read_from_source(source: str, cuda: str | None) -> None:
    assert parse_constant(source, "cuda") == cuda


def test_torch_build_is_read_without_importing_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch/version.py").write_text(CUDA_BUILD, encoding="utf-8")
    distribution = SimpleNamespace(locate_file=lambda name: tmp_path / name)
    monkeypatch.setattr(python, "package_version", lambda name: "2.13.0+cu130")
    monkeypatch.setattr(metadata, "distribution", lambda name: distribution)
    assert read_torch_build() == TorchBuild("2.13.0+cu130", "13.0")
    (tmp_path / "torch/version.py").unlink()
    with pytest.raises(FileNotFoundError):
        read_torch_build()


def test_torch_that_is_not_installed_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(python, "package_version", lambda name: None)
    assert read_torch_build() is None
