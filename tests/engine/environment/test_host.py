from __future__ import annotations

from pathlib import Path

import pytest

from engine.environment.check import CheckStatus, run_checks
from engine.environment.host import (
    DISK_FAIL_BYTES,
    DISK_WARN_BYTES,
    GB,
    check_cpu,
    check_os,
    host_checks,
    judge_cpu,
    judge_disk,
    judge_memory,
    notable_isa,
)
from engine.telemetry.cgroup import CgroupMemory

SAPPHIRE_RAPIDS = "processor\t: 0\nflags\t\t: fpu sse2 avx avx2 avx512f avx512_bf16 amx_bf16 amx_tile\n"
GRAVITON = "processor\t: 0\nFeatures\t: fp asimd sve bf16\n"


def test_all_checks_of_this_host_are_decided(tmp_path: Path) -> None:
    results = run_checks(host_checks(tmp_path))
    assert [result.id for result in results] == ["host.os", "host.cpu", "host.memory", "host.disk"]
    assert CheckStatus.ERROR not in {result.status for result in results}


def test_linux_passes_and_names_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.system", lambda: "Linux")
    monkeypatch.setattr("platform.release", lambda: "6.1.0-test")
    finding = check_os()
    assert finding.status is CheckStatus.PASS
    assert "Linux 6.1.0-test" in finding.observed


def test_another_system_warns(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_release() -> None:
        raise OSError("no os-release")

    monkeypatch.setattr("platform.system", lambda: "Darwin")
    monkeypatch.setattr("platform.freedesktop_os_release", no_release)
    finding = check_os()
    assert finding.status is CheckStatus.WARN
    assert finding.observed.startswith("Darwin")
    assert "Linux" in (finding.remedy or "")


@pytest.mark.parametrize(
    ("cpuinfo", "isa"),
    [
        (SAPPHIRE_RAPIDS, ("avx2", "avx512f", "bf16", "amx")),
        (GRAVITON, ("bf16", "neon", "sve")),
        ("flags : fpu sse2\n", ()),
        ("", ()),
    ],
)
def test_notable_instruction_sets(cpuinfo: str, isa: tuple[str, ...]) -> None:
    assert notable_isa(cpuinfo) == isa


@pytest.mark.parametrize(
    ("num_cores", "isa", "status", "remedy"),
    [
        (8, ("avx2",), CheckStatus.PASS, ""),
        (8, ("neon",), CheckStatus.PASS, ""),
        (8, None, CheckStatus.PASS, ""),
        (8, (), CheckStatus.WARN, "AVX2"),
        (1, ("avx2",), CheckStatus.WARN, "more cores"),
    ],
)
def test_cpu(num_cores: int, isa: tuple[str, ...] | None, status: CheckStatus, remedy: str) -> None:
    finding = judge_cpu(num_cores, isa, "seen")
    assert finding.status is status
    assert remedy in (finding.remedy or "")


def test_cpu_whose_flags_cannot_be_read_says_so(tmp_path: Path) -> None:
    assert "instruction sets: unknown" in check_cpu(tmp_path / "missing").observed


@pytest.mark.parametrize(
    ("host_bytes", "limit", "status", "remedy"),
    [
        (16 * GB, None, CheckStatus.PASS, ""),
        (16 * GB, CgroupMemory(8 * GB, 1 * GB), CheckStatus.PASS, ""),
        (16 * GB, CgroupMemory(8 * GB, 5 * GB), CheckStatus.WARN, "container's memory limit"),
        (16 * GB, CgroupMemory(8 * GB, 8 * GB), CheckStatus.FAIL, "container's memory limit"),
        (3 * GB, CgroupMemory(8 * GB, 1 * GB), CheckStatus.WARN, "Stop other programs"),
        (GB // 2, None, CheckStatus.FAIL, "Stop other programs"),
    ],
)
def test_memory_is_the_smaller_of_host_and_limit(
    host_bytes: int, limit: CgroupMemory | None, status: CheckStatus, remedy: str
) -> None:
    finding = judge_memory(host_bytes, limit)
    assert finding.status is status
    assert remedy in (finding.remedy or "")
    assert (finding.remedy is None) is (status is CheckStatus.PASS)


def test_memory_names_what_limits_it() -> None:
    finding = judge_memory(16 * GB, CgroupMemory(8 * GB, 1 * GB))
    assert finding.observed == "7.0 GB available (host 16.0 GB, limit 8.0 GB)"


@pytest.mark.parametrize(
    ("free_bytes", "status"),
    [
        (DISK_WARN_BYTES, CheckStatus.PASS),
        (DISK_WARN_BYTES - 1, CheckStatus.WARN),
        (DISK_FAIL_BYTES, CheckStatus.WARN),
        (DISK_FAIL_BYTES - 1, CheckStatus.FAIL),
        (None, CheckStatus.FAIL),
    ],
)
def test_disk(free_bytes: int | None, status: CheckStatus) -> None:
    finding = judge_disk(Path("/srv/console"), free_bytes)
    assert finding.status is status
    assert "/srv/console" in finding.observed
    assert (finding.remedy is None) is (status is CheckStatus.PASS)
