from __future__ import annotations

from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest

from engine.environment.python import TorchBuild, package_version, read_torch_build, torch_build

CUDA_BUILD = "from typing import Optional\n__version__ = '2.13.0+cu130'\ncuda: Optional[str] = '13.0'\nhip = None\n"
CPU_BUILD = "__version__ = '2.13.0+cpu'\ncuda: Optional[str] = None\n"


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
    assert torch_build.parse_constant(source, "cuda") == cuda


def test_the_build_here_has_the_version_of_its_distribution() -> None:
    build = read_torch_build()
    assert (build.version if build else None) == package_version("torch")


def test_torch_build_is_read_without_importing_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch/version.py").write_text(CUDA_BUILD, encoding="utf-8")
    distribution = SimpleNamespace(locate_file=lambda name: tmp_path / name)
    monkeypatch.setattr(torch_build, "package_version", lambda name: "2.13.0+cu130")
    monkeypatch.setattr(metadata, "distribution", lambda name: distribution)
    assert read_torch_build() == TorchBuild("2.13.0+cu130", "13.0")
    (tmp_path / "torch/version.py").unlink()
    with pytest.raises(FileNotFoundError):
        read_torch_build()


def test_torch_that_is_not_installed_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_build, "package_version", lambda name: None)
    assert read_torch_build() is None
