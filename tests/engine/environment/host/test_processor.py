from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from engine.environment.check import CheckStatus
from engine.environment.host.processor import Processor, judge_processor, read_processor
from engine.telemetry.cgroup import CgroupCpus
from tests.engine.environment.host.tree import host, run_check, write_tree

SAPPHIRE_RAPIDS = (
    "processor\t: 0\nmodel name\t: Intel(R) Xeon(R) Platinum 8480C\n"
    "flags\t\t: fpu sse2 avx avx2 avx512f avx512_vnni avx512_bf16 amx_bf16 amx_tile\n\n"
    "processor\t: 1\nflags\t\t: fpu\n"
)
GRAVITON = "processor\t: 0\nFeatures\t: fp asimd sve bf16\n"
XEON = Processor("Xeon", 8, None, is_x86=True, flags=frozenset({"avx2", "avx512f"}), num_threads=8)
QUOTA = CgroupCpus(1.5, "cpu.max of /app.slice")


@pytest.mark.parametrize(
    ("cpuinfo", "isa", "is_x86"),
    [
        (SAPPHIRE_RAPIDS, ("avx2", "avx512f", "vnni", "bf16", "amx"), True),
        (GRAVITON, ("bf16", "neon", "sve"), False),
        ("flags : fpu sse2\n", (), True),
        ("", (), False),
    ],
    ids=["sapphire rapids", "graviton", "an old one", "nothing"],
)
def test_notable_instruction_sets(tmp_path: Path, cpuinfo: str, isa: tuple[str, ...], is_x86: bool) -> None:
    processor = read_processor(write_tree(tmp_path, {"proc/cpuinfo": cpuinfo}))
    assert (processor.isa, processor.is_x86) == (isa, is_x86)


@pytest.mark.parametrize(
    ("processor", "status", "remedy"),
    [
        (XEON, CheckStatus.PASS, ""),
        (replace(XEON, num_allowed=3), CheckStatus.WARN, "Give this process 4 cores"),
        (replace(XEON, num_allowed=1), CheckStatus.FAIL, "`taskset`"),
        (
            replace(XEON, quota=QUOTA, num_threads=2),
            CheckStatus.FAIL,
            "quota (cpu.max of /app.slice) to 4 cores: `docker update --cpus 4 NAME`, in Kubernetes "
            "resources.limits.cpu, in a systemd unit CPUQuota=400%",
        ),
        (replace(XEON, quota=replace(QUOTA, num_cpus=4.0)), CheckStatus.WARN, "Set CONSOLE_THREADS=4"),
        (replace(XEON, quota=replace(QUOTA, num_cpus=4.0), num_threads=4), CheckStatus.PASS, ""),
        (replace(XEON, flags=frozenset({"sse2"})), CheckStatus.WARN, "Use a processor with avx2; in a virtual machine"),
        (replace(XEON, flags=None, is_x86=False), CheckStatus.PASS, ""),
        (replace(XEON, flags=frozenset({"asimd"}), is_x86=False), CheckStatus.PASS, ""),
    ],
    ids=["fit", "few", "too few", "quota", "threads over quota", "threads within", "old", "unknown", "arm"],
)
def test_processor(processor: Processor, status: CheckStatus, remedy: str) -> None:
    finding = judge_processor(processor, host(cores={"require": 2, "recommend": 4}))
    assert finding.status is status
    assert remedy in (finding.remedy or "")
    assert (finding.remedy is None) is (status is CheckStatus.PASS)


def test_observed_names_the_quota_and_the_facts_its_cores() -> None:
    finding = judge_processor(replace(XEON, quota=QUOTA), host())
    assert "Xeon, 1.5 cores for this process; instruction sets: avx2 avx512f" in finding.observed
    assert "cpu.max of /app.slice allows 1.5 of 8 processors, torch would start 8 threads" in finding.observed
    assert finding.facts == {"model": "Xeon", "cores": 1.5, "isa": "avx2 avx512f"}


def test_a_raw_flag_may_be_asked_for() -> None:
    processor = replace(XEON, flags=frozenset({"avx512_bf16"}))
    assert judge_processor(processor, host(isa=("avx512_bf16", "bf16"))).status is CheckStatus.PASS


@pytest.mark.parametrize(("variable", "num_threads"), [("CONSOLE_THREADS", 3), ("OMP_NUM_THREADS", 3), ("OTHER", None)])
def test_threads_are_those_of_the_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, num_threads: int | None
) -> None:
    for name in ("CONSOLE_THREADS", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, "3")
    processor = read_processor(tmp_path)
    assert processor.num_threads == (num_threads or processor.num_allowed)


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="reads the affinity, which Linux has")
def test_check_takes_the_smaller_of_affinity_and_quota(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.setenv("CONSOLE_THREADS", "2")
    files = {
        "proc/cpuinfo": SAPPHIRE_RAPIDS,
        "proc/self/cgroup": "0::/app\n",
        "sys/fs/cgroup/app/cpu.max": "150000 100000\n",
    }
    finding = run_check("host.cpu", tmp_path, files, cores=2)
    assert (finding.status, finding.facts["cores"]) == (CheckStatus.FAIL, 1.5)
    assert run_check("host.cpu", tmp_path, {"sys/fs/cgroup/app/cpu.max": "max 100000\n"}, cores=8).facts["cores"] == 8
