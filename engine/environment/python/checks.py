"""The checks of this interpreter and its packages."""

from __future__ import annotations

from pathlib import Path

from engine.environment.check import Check, Finding, Shared
from engine.environment.context import CheckContext
from engine.environment.python.conflicts import judge_conflicts
from engine.environment.python.contests import Contest, find_contests
from engine.environment.python.demands import PINS
from engine.environment.python.distributions import Installed, parse_requirements, read_installed
from engine.environment.python.interpreter import (
    describe_min_version,
    judge_venv,
    judge_version,
    read_interpreter,
)
from engine.environment.python.pins import judge_pins, read_pins
from engine.environment.python.registry import Registry
from engine.environment.python.resolution import BUDGET_S, judge_resolution, resolve
from engine.environment.python.torch_build import read_torch_build
from engine.environment.python.torch_trial import TRIAL_TIMEOUT_S, TrialFailure, judge_torch, try_torch

REQUIREMENTS = Path(__file__).parents[3] / PINS
_MARGIN_S = 5.0


def python_checks(context: CheckContext, requirements: Path = REQUIREMENTS) -> tuple[Check, ...]:
    """The checks against `requirements`, a file of pins; what is installed is read once for all of them."""
    profile = context.profile.python
    installed = Shared(read_installed)
    contests = Shared(lambda: _find_contests(installed(), requirements))
    return (
        Check(
            "python.version",
            "Python version",
            describe_min_version(profile),
            lambda: judge_version(read_interpreter(), profile),
        ),
        Check("python.venv", "Virtual environment", "in use", lambda: judge_venv(read_interpreter())),
        Check(
            "python.pins",
            "Pinned packages",
            "each at its pinned version",
            lambda: judge_pins(read_pins(requirements), requirements, installed()),
        ),
        Check(
            "python.conflicts",
            "Package conflicts",
            "every package suits all that depend on it",
            lambda: judge_conflicts(contests(), installed()),
        ),
        Check(
            "python.resolution",
            "Ways out of package conflicts",
            "a release of each contested package that suits all that depend on it",
            lambda: judge_resolution(resolve(contests(), Registry(), context.clock)),
            timeout_s=BUDGET_S + _MARGIN_S,
            is_deep=True,
        ),
        Check(
            "python.torch",
            "PyTorch",
            "imports, and multiplies without an error",
            _check_torch,
            timeout_s=TRIAL_TIMEOUT_S + _MARGIN_S,
        ),
    )


def _find_contests(installed: Installed, requirements: Path) -> tuple[Contest, ...]:
    pins, _ = parse_requirements(read_pins(requirements) or ())  # python.pins names the lines that are none
    return find_contests(installed, pins)


def _check_torch() -> Finding:
    build = read_torch_build()
    return judge_torch(build, TrialFailure("torch is not installed") if build is None else try_torch())
