"""Checks of Python and its packages."""

from __future__ import annotations

from engine.environment.python.checks import python_checks
from engine.environment.python.distributions import package_version
from engine.environment.python.torch_build import TorchBuild, read_torch_build

__all__ = ["TorchBuild", "package_version", "python_checks", "read_torch_build"]
