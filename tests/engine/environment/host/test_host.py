from __future__ import annotations

from pathlib import Path

import pytest

from engine.environment.check import CheckStatus, run_checks
from engine.environment.context import CheckContext
from engine.environment.host import host_checks
from engine.environment.profile import SHIPPED, load_profile
from engine.telemetry.nvml import Nvml

IDS = [
    "host.os",
    "host.cpu",
    "host.memory",
    "host.swap",
    "host.home",
    "host.disk",
    "host.shm",
    "host.open_files",
    "host.tasks",
    "host.overcommit",
    "host.max_map_count",
    "host.clock",
    "host.ports",
]


@pytest.mark.parametrize("file", sorted(SHIPPED.glob("*.toml")), ids=lambda file: str(file.stem))
def test_every_check_of_this_host_is_decided_within_its_time(tmp_path: Path, file: Path) -> None:
    results = run_checks(host_checks(CheckContext(load_profile(file), tmp_path / "home", Nvml())))
    assert [result.id for result in results] == IDS
    assert {result.id: result.observed for result in results if result.status is CheckStatus.ERROR} == {}
    assert max(result.taken_s for result in results) < 2


def test_a_machine_that_tells_nothing_makes_no_errors(tmp_path: Path) -> None:
    profile = load_profile(SHIPPED / "autoglm-9b.toml")
    results = run_checks(host_checks(CheckContext(profile, tmp_path / "home", Nvml(), root=tmp_path / "empty")))
    assert {result.id: result.observed for result in results if result.status is CheckStatus.ERROR} == {}
    assert {result.id for result in results if result.status is CheckStatus.SKIP} >= {
        "host.memory",
        "host.swap",
        "host.open_files",
        "host.overcommit",
        "host.max_map_count",
    }
