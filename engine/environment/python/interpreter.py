"""The running interpreter: its version, and whether packages go into an environment of their own."""

from __future__ import annotations

import platform
import sys
from dataclasses import dataclass
from pathlib import Path

from packaging.version import Version

from engine.environment.check import CheckStatus, Finding
from engine.environment.profile import PythonProfile

CONSOLE_MIN_VERSION = "3.11"


@dataclass(frozen=True)
class Interpreter:
    """`prefix` is where packages go, `base_prefix` where the interpreter itself lives; they differ in a virtual
    environment."""

    version: str
    implementation: str
    executable: str
    prefix: str
    base_prefix: str
    is_conda: bool


def read_interpreter() -> Interpreter:
    """The interpreter that runs this code."""
    return Interpreter(
        version=".".join(map(str, sys.version_info[:3])),
        implementation=platform.python_implementation(),
        executable=sys.executable,
        prefix=sys.prefix,
        base_prefix=sys.base_prefix,
        is_conda=(Path(sys.prefix) / "conda-meta").is_dir(),
    )


def find_min_version(profile: PythonProfile) -> str:
    """What the console itself needs, or what the profile asks for if that is more."""
    return max(CONSOLE_MIN_VERSION, profile.min_version, key=Version)


def describe_min_version(profile: PythonProfile) -> str:
    """`3.11 or newer`, with both bounds where the profile's is another."""
    text = f"{find_min_version(profile)} or newer"
    if Version(profile.min_version) == Version(CONSOLE_MIN_VERSION):
        return text
    return f"{text} (the console needs {CONSOLE_MIN_VERSION}, the profile {profile.min_version})"


def judge_version(interpreter: Interpreter, profile: PythonProfile) -> Finding:
    """Fail below the oldest Python that the console runs on, and below the profile's."""
    observed = f"{interpreter.version} ({interpreter.implementation})"
    facts = {"version": interpreter.version, "implementation": interpreter.implementation}
    wanted = find_min_version(profile)
    if Version(interpreter.version) >= Version(wanted):
        return Finding(CheckStatus.PASS, observed, facts=facts)
    remedy = f"Install Python {wanted} or newer, remove .venv and run `make run PYTHON=/path/to/python{wanted}`."
    return Finding(CheckStatus.FAIL, observed, remedy, facts)


def judge_venv(interpreter: Interpreter) -> Finding:
    """Warn where packages would go into the system's Python."""
    facts = {"prefix": interpreter.prefix}
    if interpreter.prefix != interpreter.base_prefix:
        return Finding(CheckStatus.PASS, interpreter.prefix, facts=facts)
    if interpreter.is_conda:
        return Finding(CheckStatus.PASS, f"{interpreter.prefix} (conda)", facts=facts)
    remedy = "Start the console with `make run`, which makes .venv, or run `python3 -m venv .venv`."
    return Finding(CheckStatus.WARN, f"none: {interpreter.prefix} is the system's Python", remedy, facts)
