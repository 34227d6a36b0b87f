from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.deploy.docker import EngineInfo, RunningContainer, RunningContainers
from engine.environment.check import CheckStatus
from engine.environment.containers.capacity import judge_capacity
from engine.environment.profile import ContainersProfile

GB = 10**9
HOST = EngineInfo(memory_bytes=64 * GB, num_cpus=8)
NOTHING = ContainersProfile()


def running(*containers: RunningContainer, num_unread: int = 0) -> RunningContainers:
    return RunningContainers(containers, num_unread)


def test_an_idle_machine_passes() -> None:
    finding = judge_capacity(running(), HOST, NOTHING)
    assert (finding.status, finding.observed) == (
        CheckStatus.PASS,
        "nothing runs; the machine has 64.0 GB and 8 cores",
    )


def test_limits_within_the_machine_pass_and_the_unlimited_are_named() -> None:
    found = running(
        RunningContainer("api", 16 * GB, 2.0),
        RunningContainer("db", None, None, 512),
        RunningContainer("web", GB, None),
    )
    finding = judge_capacity(found, HOST, ContainersProfile(cpus=4))
    assert finding.status is CheckStatus.PASS
    assert finding.observed == (
        "3 running: memory limits 17.0 GB of 64.0 GB, CPU limits 2 of 8 cores; planned 0 GB and 4 cores more, "
        "together 17.0 GB and 6 cores; no memory limit: db; no CPU limit: web; CPU shares alone, "
        "which reserve nothing: db"
    )
    assert finding.facts["memory_limits_bytes"] == 17 * GB


def test_planned_memory_beside_what_may_take_it_all_warns() -> None:
    """What has no limit, or was not read, may leave less than the known limits do."""
    found = running(RunningContainer("db", None, 1.0), num_unread=30)
    finding = judge_capacity(found, HOST, ContainersProfile(memory_gb=60))
    assert finding.status is CheckStatus.WARN
    assert (finding.remedy or "").startswith("Give db a memory limit (`docker update --memory 4g --memory-swap 4g db`)")
    assert "the 30 not read in time (`docker stats --no-stream`)" in (finding.remedy or "")
    unread = judge_capacity(running(num_unread=1), HOST, ContainersProfile(memory_gb=60))
    assert unread.status is CheckStatus.WARN
    assert judge_capacity(found, HOST, NOTHING).status is CheckStatus.PASS


def test_limits_that_leave_the_planned_memory_pass() -> None:
    found = running(RunningContainer("api", 4 * GB, 1.0))
    assert judge_capacity(found, HOST, ContainersProfile(memory_gb=60)).status is CheckStatus.PASS


def test_a_reservation_counts_where_there_is_no_limit() -> None:
    found = running(
        RunningContainer("db", None, 1.0, memory_reservation_bytes=40 * GB),
        RunningContainer("api", 16 * GB, 1.0, memory_reservation_bytes=8 * GB),
    )
    finding = judge_capacity(found, HOST, NOTHING)
    assert finding.status is CheckStatus.PASS
    assert "memory limits 16.0 GB, reservations 48.0 GB, of 64.0 GB" in finding.observed
    assert finding.facts["memory_reservations_bytes"] == 48 * GB
    planned = judge_capacity(found, HOST, ContainersProfile(memory_gb=10))
    assert planned.status is CheckStatus.FAIL
    assert "by 2.0 GB, or plan for at most 8 GB" in (planned.remedy or "")
    assert "planned 10 GB and 0 cores more, together 66.0 GB" in planned.observed


def test_memory_over_the_machine_warns() -> None:
    finding = judge_capacity(running(RunningContainer("a", 40 * GB), RunningContainer("b", 30 * GB)), HOST, NOTHING)
    assert finding.status is CheckStatus.WARN
    assert (finding.remedy or "").startswith("Lower memory limits and reservations by 6.0 GB (`docker update --memory")


def test_cores_over_the_machine_warn() -> None:
    finding = judge_capacity(running(RunningContainer("a", GB, 6.0)), HOST, ContainersProfile(cpus=4))
    assert finding.status is CheckStatus.WARN
    assert (finding.remedy or "").startswith("Lower CPU limits by 2 cores (`docker update --cpus")


def test_a_planned_container_that_does_not_fit_fails_with_numbers() -> None:
    finding = judge_capacity(running(RunningContainer("a", 40 * GB)), HOST, ContainersProfile(memory_gb=30))
    assert finding.status is CheckStatus.FAIL
    assert finding.remedy == (
        "Stop containers or lower their limits (`docker update --memory`) by 6.0 GB, or plan for at most 24 GB: set "
        "containers.memory_gb in the profile."
    )


def test_more_planned_memory_than_there_is_fails_whatever_runs() -> None:
    finding = judge_capacity(running(), HOST, ContainersProfile(memory_gb=70))
    assert finding.status is CheckStatus.FAIL
    assert (finding.remedy or "").startswith("Use a machine with 70.0 GB of memory or more, or plan for at most 64 GB")


def test_more_planned_cores_than_there_are_fail() -> None:
    finding = judge_capacity(running(), HOST, ContainersProfile(cpus=9))
    assert finding.status is CheckStatus.FAIL
    assert "at most 8 cores" in (finding.remedy or "")


def test_many_names_are_cut_and_the_unread_told() -> None:
    found = running(*(RunningContainer(f"c{index}", GB) for index in range(7)), num_unread=3)
    observed = judge_capacity(found, HOST, NOTHING).observed
    assert "no CPU limit: c0, c1, c2, c3 and 3 more; 3 more not read in time" in observed


@pytest.mark.parametrize(
    ("found", "info", "said"),
    [
        (RunningContainers(reason="timed out"), HOST, "the engine does not tell what runs: timed out"),
        (running(), EngineInfo(), "the engine does not tell what the machine has"),
    ],
)
def test_what_cannot_be_told_is_a_skip(found: RunningContainers, info: EngineInfo, said: str) -> None:
    finding = judge_capacity(found, info, NOTHING)
    assert (finding.status, finding.observed) == (CheckStatus.SKIP, said)


@given(
    taken=st.lists(st.none() | st.integers(1, 64 * GB), max_size=5),
    planned_gb=st.floats(0, 100),
    planned_cpus=st.floats(0, 20),
)
def test_it_fails_exactly_when_the_plan_does_not_fit(
    taken: list[int | None], planned_gb: float, planned_cpus: float
) -> None:
    found = running(*(RunningContainer(str(index), limit) for index, limit in enumerate(taken)))
    finding = judge_capacity(found, HOST, ContainersProfile(memory_gb=planned_gb, cpus=planned_cpus))
    free_bytes = max(0, 64 * GB - sum(limit or 0 for limit in taken))
    is_misfit = int(planned_gb * GB) > free_bytes or planned_cpus > 8
    assert (finding.status is CheckStatus.FAIL) is is_misfit
