from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.environment.check import CheckStatus
from engine.environment.host.disk import Space, judge_shm, judge_space, read_space
from engine.environment.profile import GB, Bound
from tests.engine.environment.host.tree import run_check

FOLDER = Path("/srv/console/weights")
SPACE = Space(FOLDER, Path("/srv"), 100 * GB, 10 * GB, 100_000)
FREE = Bound(require=2, recommend=10)
INODES = Bound(require=10_000, recommend=100_000)


@pytest.mark.parametrize(
    ("space", "status", "remedy"),
    [
        (SPACE, CheckStatus.PASS, ""),
        (replace(SPACE, num_inodes_free=None), CheckStatus.PASS, ""),
        (replace(SPACE, free_bytes=8 * GB), CheckStatus.WARN, "Free 2.0 GB more at /srv (`du -xh --max-depth=2 /srv"),
        (replace(SPACE, free_bytes=GB), CheckStatus.FAIL, "Free 9.0 GB more at /srv"),
        (replace(SPACE, free_bytes=GB), CheckStatus.FAIL, "Or move it."),
        (
            replace(SPACE, total_bytes=8 * GB, free_bytes=7 * GB),
            CheckStatus.WARN,
            "10.0 GB do not fit on this disk of 8.0 GB",
        ),
        (replace(SPACE, num_inodes_free=99_999), CheckStatus.WARN, "until 100,000 inodes are free (`du --inodes"),
        (replace(SPACE, num_inodes_free=0), CheckStatus.FAIL, "`mkfs.ext4 -N`"),
        (None, CheckStatus.FAIL, "Let this user read /srv/console/weights. Or move it."),
    ],
)
def test_space(space: Space | None, status: CheckStatus, remedy: str) -> None:
    finding = judge_space(space, FOLDER, FREE, INODES, "Or move it.")
    assert finding.status is status
    assert remedy in (finding.remedy or "")
    assert (finding.remedy is None) is (status is CheckStatus.PASS)


def test_observed_tells_space_and_inodes() -> None:
    finding = judge_space(SPACE, FOLDER, FREE, INODES, "Or move it.")
    assert finding.observed == "10.0 GB free of 100.0 GB at /srv, 100,000 inodes free"
    assert finding.facts["free_bytes"] == 10 * GB


def test_space_is_read_at_the_nearest_folder(tmp_path: Path) -> None:
    space = read_space(tmp_path / "not/there")
    assert space is not None
    assert space.existing == tmp_path
    assert 0 <= space.free_bytes <= space.total_bytes


def statvfs_as(**changes: int) -> Callable[[Path], os.statvfs_result]:
    """The real answer with fields changed."""
    real = os.statvfs
    names = [name for name in dir(os.statvfs_result) if name.startswith("f_") and name not in ("f_fsid",)]

    def answer(path: Path) -> os.statvfs_result:
        seen = real(path)
        order = ("f_bsize", "f_frsize", "f_blocks", "f_bfree", "f_bavail", "f_files", "f_ffree", "f_favail")
        assert set(order) <= set(names)
        values = [changes.get(name, getattr(seen, name)) for name in order]
        return os.statvfs_result((*values, seen.f_flag, seen.f_namemax))

    return answer


def test_a_file_system_that_counts_no_inodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "statvfs", statvfs_as(f_files=0, f_ffree=0, f_favail=0))
    space = read_space(tmp_path)
    assert space is not None
    assert space.num_inodes_free is None


def test_a_folder_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> os.statvfs_result:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "statvfs", refuse)
    assert read_space(tmp_path) is None
    finding = run_check("host.disk", tmp_path, {})
    assert finding.status is CheckStatus.FAIL
    assert "CONSOLE_HOME" in (finding.remedy or "")


def test_check_looks_at_the_weights(tmp_path: Path) -> None:
    finding = run_check("host.disk", tmp_path, {}, disk_free_gb=0, inodes_free=0)
    assert finding.status is CheckStatus.PASS
    assert finding.facts["folder"] == str(tmp_path / "home/weights")
    short = run_check("host.disk", tmp_path, {}, disk_free_gb=10**9, inodes_free=0)
    assert short.status is CheckStatus.FAIL
    assert "CONSOLE_HOME" in (short.remedy or "")


@pytest.mark.parametrize(
    ("space", "status", "remedy"),
    [
        (replace(SPACE, total_bytes=GB, free_bytes=GB), CheckStatus.PASS, ""),
        (replace(SPACE, total_bytes=67_108_864, free_bytes=67_108_864), CheckStatus.WARN, "`--shm-size=954m`"),
        (replace(SPACE, total_bytes=GB, free_bytes=GB // 4), CheckStatus.WARN, "ls -lS /dev/shm"),
        (None, CheckStatus.WARN, "Mount a tmpfs at /dev/shm"),
    ],
    ids=["fit", "docker's default", "full", "none"],
)
def test_shm(space: Space | None, status: CheckStatus, remedy: str) -> None:
    finding = judge_shm(space, Bound(require=None, recommend=1))
    assert finding.status is status
    assert remedy in (finding.remedy or "")


@given(st.floats(0.001, 1000))
def test_the_advised_size_of_shm_is_enough(wanted_gb: float) -> None:
    bound = Bound(require=wanted_gb)
    remedy = judge_shm(None, bound).remedy or ""
    size = int(remedy.split("--shm-size=")[1].split("m`")[0]) * 2**20
    grown = replace(SPACE, total_bytes=size, free_bytes=size)
    assert judge_shm(grown, bound).status is CheckStatus.PASS


def test_dockers_default_shm_meets_the_default_profile(tmp_path: Path) -> None:
    default = 64 * 2**20
    assert judge_shm(replace(SPACE, total_bytes=default, free_bytes=default), Bound(require=None, recommend=0.064))
    assert run_check("host.shm", tmp_path, {}, shm_gb=1).status is CheckStatus.FAIL
    assert run_check("host.shm", tmp_path, {"dev/shm/x": ""}, shm_gb=0).status is CheckStatus.PASS
