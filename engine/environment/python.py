"""Checks of the Python interpreter and its packages. Reads package metadata; imports none of the packages."""

from __future__ import annotations

import ast
import os
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from engine.environment.check import Check, CheckStatus, Finding

MIN_PYTHON = (3, 11)
REQUIREMENTS = Path(__file__).parents[2] / "requirements.txt"


@dataclass(frozen=True)
class TorchBuild:
    """The installed torch; `cuda_version` is what it was built with, None for a build without CUDA."""

    version: str
    cuda_version: str | None


@dataclass(frozen=True)
class Mismatch:
    """A line of a requirements file that this environment does not meet."""

    text: str
    is_missing: bool


def python_checks(requirements: Path = REQUIREMENTS) -> tuple[Check, ...]:
    """The checks of this interpreter against `requirements`, a file of pins."""
    wanted = ".".join(map(str, MIN_PYTHON))
    return (
        Check("python.version", "Python version", f"{wanted} or newer", lambda: judge_version(current_python())),
        Check("python.venv", "Virtual environment", "in use", check_venv),
        Check("python.pins", "Pinned packages", "each at its pinned version", lambda: check_pins(requirements)),
    )


def current_python() -> tuple[int, int, int]:
    """The running interpreter's version."""
    return sys.version_info[:3]


def judge_version(version: tuple[int, int, int]) -> Finding:
    """Fail below the oldest Python that the console runs on."""
    observed = ".".join(map(str, version))
    if version[:2] >= MIN_PYTHON:
        return Finding(CheckStatus.PASS, observed)
    wanted = ".".join(map(str, MIN_PYTHON))
    return Finding(CheckStatus.FAIL, observed, f"Install Python {wanted} or newer and make the environment anew.")


def check_venv() -> Finding:
    """Warn where packages would go into the system's Python."""
    if sys.prefix != sys.base_prefix or "CONDA_PREFIX" in os.environ:
        return Finding(CheckStatus.PASS, sys.prefix)
    remedy = "Start the console with `make run`, which makes .venv, or run `python3 -m venv .venv`."
    return Finding(CheckStatus.WARN, f"none: {sys.prefix} is the system's Python", remedy)


def check_pins(requirements: Path) -> Finding:
    """Every pin against what is installed; missing packages fail, other versions warn."""
    if not requirements.is_file():
        return Finding(CheckStatus.SKIP, f"{requirements} does not exist, so there are no pins to compare")
    pins = [line for raw in requirements.read_text(encoding="utf-8").splitlines() if (line := _pin(raw))]
    mismatches = compare_pins(pins, installed_versions())
    if not mismatches:
        return Finding(CheckStatus.PASS, f"all {len(pins)} pins are met")
    status = CheckStatus.FAIL if any(item.is_missing for item in mismatches) else CheckStatus.WARN
    remedy = f"{sys.executable} -m pip install -r {requirements}"
    return Finding(status, "; ".join(item.text for item in mismatches), remedy)


def compare_pins(pins: list[str], installed: dict[str, str]) -> list[Mismatch]:
    """The pins that `installed` (canonical name to version) does not meet; 2.13.0+cpu meets ==2.13.0."""
    return [found for pin in pins if (found := _compare(pin, installed)) is not None]


def installed_versions() -> dict[str, str]:
    """Every installed distribution's version by canonical name; the first on sys.path wins, as in imports."""
    versions: dict[str, str] = {}
    for distribution in metadata.distributions():
        if name := distribution.metadata["Name"]:  # a half-removed distribution has no name
            versions.setdefault(canonicalize_name(name), distribution.version)
    return versions


def package_version(name: str) -> str | None:
    """An installed distribution's version; None where it is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def read_torch_build() -> TorchBuild | None:
    """The installed torch, read from its files without importing it; None where it is not installed.

    Raises:
        OSError: torch is installed but its version.py cannot be read.
    """
    version = package_version("torch")
    if version is None:
        return None
    file = Path(str(metadata.distribution("torch").locate_file("torch/version.py")))
    return TorchBuild(version, parse_constant(file.read_text(encoding="utf-8"), "cuda"))


def parse_constant(source: str, name: str) -> str | None:
    """The string that a module's source assigns to `name` at its top level; None for anything else."""
    for node in ast.parse(source).body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        is_named = any(isinstance(target, ast.Name) and target.id == name for target in targets)
        value = getattr(node, "value", None)
        if is_named and isinstance(value, ast.Constant) and isinstance(value.value, str):
            return value.value
    return None


def _pin(line: str) -> str | None:
    """A requirements line without its comment; None for blank lines and pip's own options."""
    text = line.split(" #", 1)[0].strip()
    return None if not text or text.startswith(("#", "-")) else text


def _compare(pin: str, installed: dict[str, str]) -> Mismatch | None:
    try:
        requirement = Requirement(pin)
    except InvalidRequirement:
        return Mismatch(f"{pin!r} is not a requirement that can be read", is_missing=False)
    if requirement.marker is not None and not requirement.marker.evaluate():
        return None
    version = installed.get(canonicalize_name(requirement.name))
    if version is None:
        return Mismatch(f"{requirement.name} is not installed, pinned {requirement.specifier}", is_missing=True)
    if requirement.specifier.contains(version, prereleases=True):
        return None
    return Mismatch(f"{requirement.name} {version}, pinned {requirement.specifier}", is_missing=False)
