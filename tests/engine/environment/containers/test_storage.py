from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.deploy.disk_usage import Reclaimable
from engine.deploy.docker import ContainerEngine, EngineInfo
from engine.environment.check import CheckStatus
from engine.environment.containers.storage import (
    DataRoot,
    find_engine_root,
    judge_data_root,
    judge_storage,
    read_data_root,
)
from engine.environment.host.disk import Space
from engine.environment.profile import Bound
from tests.unprivileged import open_folder, run_as_nobody

GB = 10**9
SOCKET = "unix:///var/run/docker.sock"
NONE = ContainerEngine(SOCKET, reason="No container engine runs here.", is_absent=True)
FREE, INODES = Bound(require=10, recommend=None), Bound(require=10_000, recommend=100_000)
SPACE = Space(Path("/var/lib/docker"), Path("/var/lib/docker"), 100 * GB, 50 * GB, 1_000_000)
ROOT = DataRoot(SPACE.folder, SPACE, Reclaimable(images_bytes=2 * GB, build_cache_bytes=GB))


def local(data_root: Path | str | None) -> ContainerEngine:
    info = EngineInfo(data_root=None if data_root is None else str(data_root))
    return ContainerEngine(SOCKET, "Docker Engine", info=info)


def root_with(**changes: Any) -> DataRoot:
    return dataclasses.replace(ROOT, space=dataclasses.replace(SPACE, **changes))


def test_overlay2_passes_and_cgroups_are_told() -> None:
    finding = judge_storage(EngineInfo(storage_driver="overlay2", cgroup_driver="systemd", cgroup_version="2"))
    assert finding.status is CheckStatus.PASS
    assert finding.observed == "storage driver overlay2; cgroup version 2, driver systemd"
    assert finding.facts == {"storage_driver": "overlay2", "cgroup_driver": "systemd", "cgroup_version": "2"}


def test_cgroup_version_1_is_told() -> None:
    finding = judge_storage(EngineInfo(storage_driver="overlay2", cgroup_driver="cgroupfs", cgroup_version="1"))
    assert finding.status is CheckStatus.PASS
    assert "want version 2" in finding.observed


@pytest.mark.parametrize("driver", ["vfs", "devicemapper", "aufs"])
def test_a_bad_driver_warns_with_the_setting(driver: str) -> None:
    finding = judge_storage(EngineInfo(storage_driver=driver))
    assert finding.status is CheckStatus.WARN
    assert '"storage-driver": "overlay2" in /etc/docker/daemon.json' in (finding.remedy or "")
    assert driver in (finding.remedy or "")


def test_the_data_root_of_this_machine_is_read(tmp_path: Path) -> None:
    found = read_data_root(local(tmp_path), Path("/"), lambda: Reclaimable(images_bytes=1))
    assert isinstance(found, DataRoot)
    assert (found.folder, found.reclaimable, found.is_told) == (tmp_path, Reclaimable(images_bytes=1), True)
    assert found.space is not None
    assert found.space.free_bytes > 0


@pytest.mark.parametrize(
    ("engine", "reason"),
    [
        (ContainerEngine("tcp://engine:2375"), "another machine"),
        (local("/nowhere/docker"), "may be a container"),
    ],
)
def test_a_data_root_elsewhere_is_a_skip(engine: ContainerEngine, reason: str) -> None:
    finding = judge_data_root(read_data_root(engine, Path("/"), Reclaimable), FREE, INODES, is_required=True)
    assert finding.status is CheckStatus.SKIP
    assert reason in finding.observed


@pytest.mark.parametrize("engine", [NONE, local(None), ContainerEngine(SOCKET, "Docker Engine")])
def test_without_an_engine_that_tells_its_own_default_counts(engine: ContainerEngine, tmp_path: Path) -> None:
    (tmp_path / "var/lib/docker").mkdir(parents=True)
    found = read_data_root(engine, tmp_path, Reclaimable)
    assert isinstance(found, DataRoot)
    assert (found.folder, found.reclaimable, found.is_told) == (tmp_path / "var/lib/docker", None, False)
    assert "where images land by default; no engine tells" in judge_data_root(found, FREE, INODES, False).observed


@pytest.mark.parametrize(
    ("made", "found"),
    [
        ((), "var"),
        (("var/lib/containerd",), "var/lib/containerd"),
        (("var/lib/containerd", "var/lib/docker"), "var/lib/docker"),
    ],
)
def test_where_images_land(tmp_path: Path, made: tuple[str, ...], found: str) -> None:
    for name in made:
        (tmp_path / name).mkdir(parents=True)
    assert find_engine_root(tmp_path) == tmp_path / found


def test_a_data_root_that_this_user_may_not_look_into() -> None:
    """As with docker's userns-remap, where the data root lies in a folder that is root's alone."""
    with open_folder() as folder:
        remapped = folder / "docker/100000.100000"
        remapped.mkdir(parents=True)
        remapped.parent.chmod(0o710)
        imports = """
from pathlib import Path
from engine.deploy.docker import ContainerEngine, EngineInfo
from engine.environment.containers.storage import read_data_root
"""
        script = f"""
engine = ContainerEngine("unix:///run/d.sock", info=EngineInfo(data_root={str(remapped)!r}))
found = read_data_root(engine, Path("/"), lambda: None)
print(found.folder, found.space.existing, found.space.free_bytes > 0)
"""
        assert run_as_nobody(imports, script) == f"{remapped} {remapped.parent} True\n"


def test_a_data_root_that_cannot_be_read() -> None:
    finding = judge_data_root(DataRoot(Path("/d"), None), FREE, INODES, is_required=True)
    assert (finding.status, finding.observed) == (CheckStatus.FAIL, "/d cannot be read")
    assert "as root" in (finding.remedy or "")
    assert judge_data_root(DataRoot(Path("/d"), None), FREE, INODES, is_required=False).status is CheckStatus.WARN


def test_a_roomy_disk_passes() -> None:
    finding = judge_data_root(ROOT, FREE, INODES, is_required=True)
    assert finding.status is CheckStatus.PASS
    assert finding.observed == (
        "50.0 GB free of 100.0 GB at /var/lib/docker, 1,000,000 inodes free; 3.0 GB could be pruned"
    )
    assert finding.facts["free_bytes"] == 50 * GB


@pytest.mark.parametrize(("is_required", "status"), [(True, CheckStatus.FAIL), (False, CheckStatus.WARN)])
def test_a_full_disk_names_what_frees_how_much(is_required: bool, status: CheckStatus) -> None:
    finding = judge_data_root(root_with(free_bytes=8 * GB), FREE, INODES, is_required)
    assert finding.status is status
    assert finding.remedy == (
        "Free 2.0 GB more at /var/lib/docker (`docker image prune --all` frees up to 2.0 GB: images no container uses; "
        "`docker builder prune --all` frees up to 1.0 GB: build cache). "
        'Otherwise move "data-root" in /etc/docker/daemon.json to a larger disk.'
    )


def test_an_engine_with_nothing_to_prune() -> None:
    found = dataclasses.replace(root_with(free_bytes=4 * GB), reclaimable=Reclaimable())
    remedy = judge_data_root(found, FREE, INODES, is_required=True).remedy or ""
    assert remedy.startswith("Free 6.0 GB more at /var/lib/docker (`du -xh")
    assert "prune" not in remedy


def test_an_engine_that_did_not_tell_in_time() -> None:
    found = dataclasses.replace(root_with(free_bytes=4 * GB), reclaimable=None)
    finding = judge_data_root(found, FREE, INODES, is_required=True)
    assert "did not tell in time" in finding.observed
    assert "`docker system df` shows" in (finding.remedy or "")


@pytest.mark.parametrize(("inodes", "status"), [(5_000, CheckStatus.FAIL), (50_000, CheckStatus.WARN)])
def test_few_inodes_are_a_lack_of_their_own(inodes: int, status: CheckStatus) -> None:
    finding = judge_data_root(root_with(num_inodes_free=inodes), FREE, INODES, is_required=True)
    assert finding.status is status
    assert "100,000 inodes are free" in (finding.remedy or "")


@given(
    free=st.integers(0, 100 * GB),
    inodes=st.none() | st.integers(0, 10**7),
    images=st.integers(0, 10**11),
    is_required=st.booleans(),
)
def test_only_what_is_required_fails(free: int, inodes: int | None, images: int, is_required: bool) -> None:
    found = dataclasses.replace(root_with(free_bytes=free, num_inodes_free=inodes), reclaimable=Reclaimable(images))
    finding = judge_data_root(found, FREE, INODES, is_required)
    is_short = free < 10 * GB or (inodes is not None and inodes < 10_000)
    assert (finding.status is CheckStatus.FAIL) is (is_short and is_required)
    assert (finding.remedy is None) is (finding.status is CheckStatus.PASS)
