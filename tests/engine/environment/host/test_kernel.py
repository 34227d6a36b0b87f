from __future__ import annotations

from pathlib import Path

import pytest

from engine.environment.check import CheckStatus
from engine.environment.host.kernel import Overcommit, judge_max_map_count, judge_overcommit
from engine.environment.profile import GB, Bound
from tests.engine.environment.host.tree import MEMINFO, run_check


@pytest.mark.parametrize(
    ("overcommit", "status"),
    [
        (Overcommit(0, 16 * GB, 8 * GB, GB), CheckStatus.PASS),
        (Overcommit(1, 16 * GB, 8 * GB, GB), CheckStatus.PASS),
        (Overcommit(2, 16 * GB, 16 * GB, GB), CheckStatus.PASS),
        (Overcommit(2, 16 * GB, None, None), CheckStatus.PASS),
        (Overcommit(2, 16 * GB, 8 * GB, GB), CheckStatus.WARN),
        (Overcommit(None, 16 * GB, 8 * GB, GB), CheckStatus.SKIP),
    ],
)
def test_overcommit(overcommit: Overcommit, status: CheckStatus) -> None:
    finding = judge_overcommit(overcommit)
    assert finding.status is status
    assert ("sysctl -w vm.overcommit_memory=0" in (finding.remedy or "")) is (status is CheckStatus.WARN)


def test_overcommit_is_read(tmp_path: Path) -> None:
    files = {"proc/meminfo": MEMINFO, "proc/sys/vm/overcommit_memory": "2\n"}
    finding = run_check("host.overcommit", tmp_path, files)
    assert finding.status is CheckStatus.WARN
    assert finding.observed == (
        "vm.overcommit_memory = 2 (never), 12.6 GB may be promised with 25.3 GB of memory, 1.2 GB are"
    )
    assert run_check("host.overcommit", tmp_path, {"proc/sys/vm/overcommit_memory": "0\n"}).status is CheckStatus.PASS


@pytest.mark.parametrize(
    ("number", "status", "remedy"),
    [
        (262_144, CheckStatus.PASS, ""),
        (65_530, CheckStatus.WARN, "Run `sysctl -w vm.max_map_count=262144` as root on the host."),
        (1_000, CheckStatus.FAIL, "sysctl -w vm.max_map_count=262144"),
        (None, CheckStatus.SKIP, ""),
    ],
)
def test_max_map_count(number: int | None, status: CheckStatus, remedy: str) -> None:
    finding = judge_max_map_count(number, Bound(require=65_530, recommend=262_144))
    assert finding.status is status
    assert remedy in (finding.remedy or "")


def test_max_map_count_is_read(tmp_path: Path) -> None:
    files = {"proc/sys/vm/max_map_count": "65530\n"}
    assert run_check("host.max_map_count", tmp_path, files).facts == {"max_map_count": 65_530}
    assert run_check("host.max_map_count", tmp_path, files, max_map_count=65_531).status is CheckStatus.FAIL
