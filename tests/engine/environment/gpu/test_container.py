from __future__ import annotations

from pathlib import Path

import pytest

from engine.environment.gpu.container import GIVE_GPU, Container, read_container


@pytest.mark.parametrize(
    ("mark", "container"),
    [
        (None, Container.NONE),
        (".dockerenv", Container.ENGINE),
        ("run/.containerenv", Container.ENGINE),
        ("var/run/secrets/kubernetes.io/token", Container.POD),
    ],
)
def test_containers_are_told_by_their_marks(tmp_path: Path, mark: str | None, container: Container) -> None:
    if mark is not None:
        (tmp_path / mark).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / mark).touch()
    assert read_container(tmp_path) is container


def test_both_kinds_have_a_way_to_a_gpu() -> None:
    assert "--gpus all" in GIVE_GPU[Container.ENGINE]
    assert "nvidia.com/gpu: 1" in GIVE_GPU[Container.POD]
