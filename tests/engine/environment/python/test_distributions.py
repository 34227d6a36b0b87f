from __future__ import annotations

import os
from importlib import metadata
from pathlib import Path

import pytest

from engine.environment.python.distributions import package_version, read_installed
from tests.engine.environment.python.planting import plant


def test_installed_versions_are_those_of_metadata() -> None:
    assert read_installed().versions["psutil"] == metadata.version("psutil") == package_version("psutil")
    assert package_version("no-such-package-here") is None


def test_names_are_canonical_and_requirements_are_read(tmp_path: Path) -> None:
    plant(tmp_path, "Typing.Extensions_X", "1.0+cpu", ["numpy>=2 ; python_version > '3'", "not a requirement"])
    distribution = read_installed([str(tmp_path)]).distributions["typing-extensions-x"]
    assert distribution.version == "1.0+cpu"
    assert [requirement.name for requirement in distribution.requires] == ["numpy"]
    assert distribution.unreadable == ("not a requirement",)


def test_the_first_on_the_path_wins(tmp_path: Path) -> None:
    plant(tmp_path / "near", "a", "2.0")
    plant(tmp_path / "far", "a", "1.0")
    path = [str(tmp_path / "near"), str(tmp_path / "far")]
    assert read_installed(path).versions == {"a": "2.0"}
    assert read_installed(path[::-1]).versions == {"a": "1.0"}


def test_what_an_interrupted_installation_left_is_no_distribution(tmp_path: Path) -> None:
    plant(tmp_path, "a", "1.0").rename(tmp_path / "~a-1.0.dist-info")
    (tmp_path / "b-1.0.dist-info").mkdir()
    broken = plant(tmp_path, "c", "1.0")
    (broken / "METADATA").write_bytes(b"Name: \xff\xfe\n")
    installed = read_installed([str(tmp_path)])
    assert installed.versions == {}
    assert sorted(Path(folder).name for folder in installed.leftovers) == [
        "b-1.0.dist-info",
        "c-1.0.dist-info",
        "~a-1.0.dist-info",
    ]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_this_user_may_not_read_is_no_leftover(tmp_path: Path) -> None:
    (plant(tmp_path, "a", "1.0") / "METADATA").chmod(0)
    assert read_installed([str(tmp_path)]).leftovers == ()


def test_eggs_keep_their_requirements_elsewhere(tmp_path: Path) -> None:
    folder = tmp_path / "old.egg-info"
    folder.mkdir()
    (folder / "PKG-INFO").write_text("Metadata-Version: 1.0\nName: old\nVersion: 3\n", encoding="utf-8")
    (folder / "requires.txt").write_text("numpy>=1\n\n[fast]\nnumba\n", encoding="utf-8")
    distribution = read_installed([str(tmp_path)]).distributions["old"]
    assert [str(item) for item in distribution.requires] == ["numpy>=1", 'numba; extra == "fast"']
