from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from engine.environment.check import CheckStatus
from engine.environment.host.memory import Memory, judge_memory, judge_swap, read_memory
from engine.environment.profile import GB
from engine.telemetry.cgroup import CgroupMemory
from tests.engine.environment.host.tree import MEMINFO, host, run_check, write_tree

TREES = Path(__file__).parents[2] / "telemetry/cgroup_trees"
HOST = Memory(16 * GB, 12 * GB, 0, 0, None)
PROFILE = host(memory_total_gb={"require": 4, "recommend": 8}, memory_available_gb={"require": 1, "recommend": 4})


def limited(limit_gb: float, available_gb: float, setting: str = "memory.max") -> Memory:
    limit = CgroupMemory(int(limit_gb * GB), int(available_gb * GB), f"{setting} of /app", f"{setting} of /")
    return replace(HOST, limit=limit)


@pytest.mark.parametrize(
    ("memory", "status", "remedy"),
    [
        (HOST, CheckStatus.PASS, ""),
        (limited(8, 7), CheckStatus.PASS, ""),
        (limited(99, 99), CheckStatus.PASS, ""),
        (limited(8, 3), CheckStatus.WARN, "raise its limit (memory.max of /) by 1.0 GB"),
        (limited(8, 3), CheckStatus.WARN, "MemoryMax="),
        (limited(8, 3, "memory.high"), CheckStatus.WARN, "MemoryHigh="),
        (limited(8, 0.5), CheckStatus.FAIL, "by 3.5 GB"),
        (limited(5, 5), CheckStatus.WARN, "Raise the memory limit (memory.max of /app) to 8.0 GB or more"),
        (limited(3, 3), CheckStatus.FAIL, "`docker update --memory 7630m --memory-swap 7630m NAME`"),
        (replace(HOST, total_bytes=3 * GB, available_bytes=2 * GB), CheckStatus.FAIL, "a machine with 8.0 GB or more"),
        (replace(HOST, available_bytes=3 * GB), CheckStatus.WARN, "Free 1.0 GB more: stop what takes most"),
        (replace(HOST, available_bytes=GB // 2), CheckStatus.FAIL, "Free 3.5 GB more"),
        (replace(HOST, available_bytes=None), CheckStatus.SKIP, ""),
    ],
)
def test_memory(memory: Memory, status: CheckStatus, remedy: str) -> None:
    finding = judge_memory(memory, PROFILE)
    assert finding.status is status
    assert remedy in (finding.remedy or "")
    assert (finding.remedy is None) is (status in (CheckStatus.PASS, CheckStatus.SKIP))


def test_more_than_the_capacity_cannot_be_freed() -> None:
    finding = judge_memory(replace(HOST, total_bytes=3 * GB, available_bytes=2 * GB), PROFILE)
    assert "Free" not in (finding.remedy or "")


def test_observed_names_host_and_limits() -> None:
    finding = judge_memory(limited(8, 7), PROFILE)
    assert finding.observed == (
        "8.0 GB, of which 7.0 GB available (host 16.0 GB and 12.0 GB; memory.max of /app is 8.0 GB, "
        "memory.max of / leaves 7.0 GB)"
    )
    assert finding.facts == {"total_bytes": 8 * GB, "limit_bytes": 8 * GB}


def test_check_reads_a_real_v1_group_below_the_host(tmp_path: Path) -> None:
    shutil.copytree(TREES / "v1", tmp_path / "root")
    finding = run_check("host.memory", tmp_path, {"proc/meminfo": MEMINFO}, memory_available_gb=0.2)
    assert finding.status is CheckStatus.PASS, "page cache that was read twice counts as free"
    assert finding.observed.startswith("0.3 GB, of which 0.2 GB available (host 25.3 GB and 24.7 GB")


def test_check_warns_of_a_full_parent_in_v2(tmp_path: Path) -> None:
    shutil.copytree(TREES / "v2", tmp_path / "root")
    files = {"proc/meminfo": MEMINFO.replace("24683656", "98683656").replace("24128196", "64128196")}
    finding = run_check("host.memory", tmp_path, files, memory_total_gb=32, memory_available_gb={"recommend": 16})
    assert finding.status is CheckStatus.WARN
    assert "(memory.max of /kubepods.slice) by 10.1 GB" in (finding.remedy or "")


@pytest.mark.parametrize(
    ("total_gb", "free_gb", "status", "says"),
    [
        (0, 0, CheckStatus.PASS, "no swap"),
        (8, 8, CheckStatus.PASS, "0 MB of 8.0 GB in use (0%)"),
        (8, 6, CheckStatus.PASS, "2.0 GB of 8.0 GB in use (25%)"),
        (2, 1, CheckStatus.PASS, "(50%)"),
        (8, 5, CheckStatus.WARN, "3.0 GB of 8.0 GB in use (38%)"),
    ],
    ids=["none", "unused", "a small part", "little", "much"],
)
def test_swap(total_gb: int, free_gb: int, status: CheckStatus, says: str) -> None:
    finding = judge_swap(replace(HOST, swap_total_bytes=total_gb * GB, swap_free_bytes=free_gb * GB))
    assert finding.status is status
    assert says in finding.observed
    assert ("swapoff -a && swapon -a" in (finding.remedy or "")) is (status is CheckStatus.WARN)


def test_swap_is_read_from_meminfo(tmp_path: Path) -> None:
    text = MEMINFO.replace("SwapTotal:             0", "SwapTotal:       8000000")
    finding = run_check("host.swap", tmp_path, {"proc/meminfo": text})
    assert finding.status is CheckStatus.WARN
    assert finding.facts == {"total_bytes": 8_192_000_000}


def test_unreadable_memory_is_unknown(tmp_path: Path) -> None:
    memory = read_memory(write_tree(tmp_path, {}))
    assert memory == Memory(None, None, None, None, None)
    assert judge_swap(memory).status is CheckStatus.SKIP
