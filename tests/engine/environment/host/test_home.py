from __future__ import annotations

import os
from pathlib import Path

import pytest

from engine.environment.check import CheckStatus
from engine.environment.host.home import Home, judge_home, read_home
from engine.telemetry.mounts import Mount
from tests.engine.environment.host.tree import run_check, write_tree

FOLDER = Path("/srv/console")


def home(kind: str, is_writable: bool = True, options: str = "rw") -> Home:
    return Home(FOLDER, Path("/srv"), is_writable, Mount("/", "/srv", kind, frozenset(options.split(","))))


@pytest.mark.parametrize(
    ("seen", "status", "remedy"),
    [
        (home("ext4"), CheckStatus.PASS, ""),
        (Home(FOLDER, FOLDER, True, None), CheckStatus.PASS, ""),
        (home("nfs4"), CheckStatus.WARN, "not safe on nfs4: set CONSOLE_HOME to a folder on a local disk"),
        (home("fuse.sshfs"), CheckStatus.WARN, "DATABASE_URL"),
        (home("tmpfs"), CheckStatus.WARN, "gone after a restart"),
        (home("overlay"), CheckStatus.WARN, "`docker run -v console:/data -e CONSOLE_HOME=/data ...`"),
        (home("ext4", is_writable=False), CheckStatus.FAIL, f"`install -d -o {os.geteuid()} /srv/console` as root"),
        (home("ext4", is_writable=False, options="ro"), CheckStatus.FAIL, "`mount -o remount,rw /srv`"),
    ],
)
def test_home(seen: Home, status: CheckStatus, remedy: str) -> None:
    finding = judge_home(seen)
    assert finding.status is status
    assert remedy in (finding.remedy or "")
    assert (finding.remedy is None) is (status is CheckStatus.PASS)


def test_observed_says_where_it_was_read() -> None:
    assert judge_home(home("xfs")).observed == "/srv/console (read at /srv) on xfs, writable"


def test_a_file_in_the_way_is_not_writable(tmp_path: Path) -> None:
    write_tree(tmp_path, {"console": ""})
    seen = read_home(tmp_path / "console/home")
    assert seen.existing == tmp_path / "console"
    assert not seen.is_writable


def test_check_reads_the_mounts(tmp_path: Path) -> None:
    mounts = "28 1 0:40 / / rw,relatime - {} none rw\n"
    good = run_check("host.home", tmp_path, {"proc/self/mountinfo": mounts.format("ext4")})
    assert (good.status, good.facts["file_system"]) == (CheckStatus.PASS, "ext4")
    bad = run_check("host.home", tmp_path, {"proc/self/mountinfo": mounts.format("overlay")})
    assert bad.status is CheckStatus.WARN
    assert not (tmp_path / "home").exists(), "nothing is made by looking"
