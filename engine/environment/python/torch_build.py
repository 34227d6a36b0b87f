"""Which torch is installed, read from its files without importing it."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from engine.environment.python.distributions import package_version


@dataclass(frozen=True)
class TorchBuild:
    """The installed torch; `cuda_version` is what it was built with, None for a build without CUDA."""

    version: str
    cuda_version: str | None


def read_torch_build() -> TorchBuild | None:
    """The installed torch; None where it is not installed.

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
