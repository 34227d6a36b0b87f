"""The pins of a requirements file against what is installed."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from engine.environment.check import CheckStatus, Fact, Finding
from engine.environment.python.distributions import Installed


@dataclass(frozen=True)
class Mismatch:
    """A line of a requirements file that this environment does not meet."""

    text: str
    is_missing: bool


def read_pins(file: Path) -> tuple[str, ...] | None:
    """The requirements in `file`, without comments and pip's own options; None where there is no such file."""
    if not file.is_file():
        return None
    lines = file.read_text(encoding="utf-8").splitlines()
    return tuple(pin for line in lines if (pin := _pin(line)) is not None)


def judge_pins(pins: Sequence[str] | None, file: Path, installed: Installed) -> Finding:
    """Missing packages fail, other versions warn. The facts are all that is installed, `package.<name>`."""
    versions = installed.versions
    facts: dict[str, Fact] = {f"package.{name}": version for name, version in versions.items()}
    if pins is None:
        return Finding(CheckStatus.SKIP, f"{file} does not exist, so there are no pins to compare", facts=facts)
    mismatches = compare_pins(pins, versions)
    if not mismatches:
        return Finding(CheckStatus.PASS, f"all {len(pins)} pins are met", facts=facts)
    status = CheckStatus.FAIL if any(item.is_missing for item in mismatches) else CheckStatus.WARN
    remedy = shlex.join([sys.executable, "-m", "pip", "install", "-r", str(file)])
    return Finding(status, "; ".join(item.text for item in mismatches), remedy, facts)


def compare_pins(pins: Sequence[str], versions: Mapping[str, str]) -> list[Mismatch]:
    """The pins that `versions` (by canonical name) do not meet, missing packages first; 2.13.0+cpu meets ==2.13.0."""
    found = [mismatch for pin in pins if (mismatch := _compare(pin, versions)) is not None]
    return sorted(found, key=lambda mismatch: not mismatch.is_missing)


def _pin(line: str) -> str | None:
    text = line.split(" #", 1)[0].strip()
    return None if not text or text.startswith(("#", "-")) else text


def _compare(pin: str, versions: Mapping[str, str]) -> Mismatch | None:
    try:
        requirement = Requirement(pin)
    except InvalidRequirement:
        return Mismatch(f"{pin!r} is not a requirement that can be read", is_missing=False)
    if requirement.marker is not None and not requirement.marker.evaluate():
        return None
    version = versions.get(canonicalize_name(requirement.name))
    if version is None:
        return Mismatch(f"{requirement.name} is not installed, pinned {requirement.specifier}", is_missing=True)
    if requirement.specifier.contains(version, prereleases=True):
        return None
    return Mismatch(f"{requirement.name} {version}, pinned {requirement.specifier}", is_missing=False)
