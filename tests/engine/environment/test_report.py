from __future__ import annotations

import json
import platform
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.environment.check import CheckResult, CheckStatus
from engine.environment.report import (
    EnvironmentReport,
    all_checks,
    collect_report,
    sort_worst_first,
    to_json,
    to_markdown,
    to_text,
    versions,
)
from engine.telemetry.nvml import Nvml
from tests.engine.telemetry.fakes import FakeBinding, FakeGpu

statuses = st.lists(st.sampled_from(CheckStatus), max_size=12)


def result(status: CheckStatus, observed: str = "seen", remedy: str | None = None) -> CheckResult:
    return CheckResult("test.check", "A check", "something", observed, status, remedy, 0.25)


def report(*found: CheckStatus) -> EnvironmentReport:
    return EnvironmentReport(tuple(result(status) for status in found), 1_700_000_000.0)


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        ("pass skip", "pass"),
        ("pass warn", "warn"),
        ("warn error pass", "error"),
        ("error fail warn", "fail"),
        ("skip", "skip"),
        ("", "skip"),
    ],
)
def test_verdict_is_the_worst_that_counts(found: str, verdict: str) -> None:
    assert report(*map(CheckStatus, found.split())).verdict == verdict


@given(statuses)
def test_counts_add_up_and_the_verdict_is_one_of_them(found: list[CheckStatus]) -> None:
    taken = report(*found)
    assert sum(taken.counts().values()) == len(found)
    assert list(taken.counts()) == list(CheckStatus)
    assert not found or taken.counts()[taken.verdict] > 0


@given(statuses)
def test_sorting_puts_the_verdict_first_and_skips_last(found: list[CheckStatus]) -> None:
    ordered = [check.status for check in sort_worst_first(report(*found).checks)]
    assert sorted(ordered) == sorted(found)
    assert not found or ordered[0] is report(*found).verdict
    num_skips = found.count(CheckStatus.SKIP)
    assert ordered[len(ordered) - num_skips :] == [CheckStatus.SKIP] * num_skips


def test_json_round_trips() -> None:
    taken = report(CheckStatus.WARN, CheckStatus.PASS)
    parsed = json.loads(to_json(taken))
    assert parsed["verdict"] == "warn"
    assert parsed["taken_at"] == "2023-11-14T22:13:20+00:00"
    assert parsed["counts"] == {"pass": 1, "warn": 1, "fail": 0, "skip": 0, "error": 0}
    assert [CheckResult(**check) for check in parsed["checks"]] == list(taken.checks)


@given(st.text(), st.text())
def test_no_text_breaks_the_markdown_table(observed: str, remedy: str) -> None:
    taken = EnvironmentReport((result(CheckStatus.FAIL, observed, remedy),), 0.0)
    *_, row = to_markdown(taken).rstrip("\n").split("\n")
    unescaped = re.sub(r"\\.", "", row)
    assert unescaped.count("|") == 6


def test_markdown_has_what_needs_attention_first() -> None:
    text = to_markdown(report(CheckStatus.PASS, CheckStatus.FAIL))
    assert text.startswith("## Environment: fail\n")
    assert text.index("| FAIL |") < text.index("| PASS |")


def test_text_has_a_line_a_check_its_remedy_and_the_verdict() -> None:
    taken = EnvironmentReport((result(CheckStatus.FAIL, "1.0 GB free", "Free space."),), 0.0)
    assert to_text(taken) == ("FAIL   A check: 1.0 GB free\n       -> Free space.\n\nVerdict: fail (1 fail)\n")


def test_report_of_this_machine(tmp_path: Path) -> None:
    nvml = Nvml(FakeBinding(FakeGpu()))
    taken = collect_report(tmp_path, nvml)
    assert [check.id for check in taken.checks] == [check.id for check in all_checks(tmp_path, nvml)]
    assert taken.counts()[CheckStatus.ERROR] == 0
    assert all(check.remedy for check in taken.checks if check.status in (CheckStatus.WARN, CheckStatus.FAIL))


def test_check_ids_are_unique_and_carry_their_family(tmp_path: Path) -> None:
    ids = [check.id for check in all_checks(tmp_path, Nvml(FakeBinding()))]
    assert len(set(ids)) == len(ids)
    assert {name.split(".")[0] for name in ids} == {"host", "python", "gpu", "containers"}


def test_versions_of_this_machine() -> None:
    found = versions(Nvml(FakeBinding(FakeGpu())))
    assert found["python"] == platform.python_version()
    assert found["torch"] == metadata.version("torch")
    assert (found["nvidia_driver"], found["driver_cuda"]) == ("580.95.05", "13.0")
    assert found["transformers"] == metadata.version("transformers")


def test_collecting_imports_no_torch(tmp_path: Path) -> None:
    script = (
        "import sys\nfrom pathlib import Path\nfrom engine.environment import collect_report\n"
        "from engine.telemetry import Nvml\ncollect_report(Path(sys.argv[1]), Nvml())\n"
        "print('torch' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "False\n"
