from __future__ import annotations

import math
import os
from pathlib import Path

import pytest

from engine.environment.check import CheckStatus
from engine.environment.host.limits import OpenFiles, Tasks, count_threads, judge_open_files, judge_tasks, read_tasks
from engine.environment.profile import Bound
from engine.telemetry.cgroup import CgroupTasks
from tests.engine.environment.host.tree import LIMITS, run_check, write_tree

BOUND = Bound(require=1_024, recommend=65_536)
GROUP = CgroupTasks(1_024, 900, "pids.max of /pod")


@pytest.mark.parametrize(
    ("files", "status", "remedy"),
    [
        (OpenFiles(65_536, 65_536), CheckStatus.PASS, ""),
        (OpenFiles(math.inf, math.inf), CheckStatus.PASS, ""),
        (OpenFiles(1_024, 524_288), CheckStatus.WARN, "Run `ulimit -n 65536`"),
        (OpenFiles(256, math.inf), CheckStatus.FAIL, "LimitNOFILE=65536"),
        (OpenFiles(1_024, 4_096), CheckStatus.WARN, "Raise the hard limit of 4,096 too: LimitNOFILE=65536"),
        (OpenFiles(1_024, 4_096), CheckStatus.WARN, "`--ulimit nofile=65536:65536`"),
        (None, CheckStatus.SKIP, ""),
    ],
)
def test_open_files(files: OpenFiles | None, status: CheckStatus, remedy: str) -> None:
    finding = judge_open_files(files, BOUND)
    assert finding.status is status
    assert remedy in (finding.remedy or "")
    assert (finding.remedy is None) is (status in (CheckStatus.PASS, CheckStatus.SKIP))


def test_unlimited_is_a_word_in_the_facts() -> None:
    assert judge_open_files(OpenFiles(4096, math.inf), BOUND).facts == {"soft": 4096, "hard": "unlimited"}


def test_check_reads_the_limits(tmp_path: Path) -> None:
    files = {"proc/self/limits": LIMITS}
    assert run_check("host.open_files", tmp_path, files, open_files=1024).status is CheckStatus.PASS
    short = run_check("host.open_files", tmp_path, files, open_files=4096)
    assert short.observed == "at most 1,024 (hard limit 20,000)"
    assert (short.status, "`ulimit -n 4096`" in (short.remedy or "")) == (CheckStatus.FAIL, True)


@pytest.mark.parametrize(
    ("tasks", "status", "remedy"),
    [
        (Tasks(300, None, None), CheckStatus.PASS, ""),
        (Tasks(300, GROUP, 4_096), CheckStatus.PASS, ""),
        (Tasks(300, GROUP, math.inf), CheckStatus.PASS, ""),
        (
            Tasks(1_000, GROUP, None),
            CheckStatus.WARN,
            "Raise pids.max of /pod to 1,124 or more: docker `--pids-limit 1124`",
        ),
        (Tasks(1_000, None, 512), CheckStatus.WARN, "Run `ulimit -u 1000`"),
        (Tasks(300, None, 4_096, num_user_threads=3_900), CheckStatus.WARN, "Run `ulimit -u 4200`"),
    ],
)
def test_tasks(tasks: Tasks, status: CheckStatus, remedy: str) -> None:
    finding = judge_tasks(tasks)
    assert finding.status is status
    assert remedy in (finding.remedy or "")


def test_roots_own_limit_does_not_bind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_tree(tmp_path, {"proc/self/limits": LIMITS})
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert read_tasks(300, root).user_limit is None
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert read_tasks(300, root).user_limit == 96_364


def test_check_reads_the_groups_tasks(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "0::/pod\n",
        "sys/fs/cgroup/pod/pids.max": "100000\n",
        "sys/fs/cgroup/pod/pids.current": "90\n",
    }
    assert run_check("host.tasks", tmp_path, files).observed == "99,910 more of 100,000 (pids.max of /pod)"
    short = run_check("host.tasks", tmp_path, {"sys/fs/cgroup/pod/pids.max": "100\n"})
    assert (short.status, "--pids-limit" in (short.remedy or "")) == (CheckStatus.WARN, True)


def test_threads_are_counted_by_their_user(tmp_path: Path) -> None:
    states = {"7": (1000, 12), "8": (1000, 30), "9": (0, 99)}
    for pid, (user_id, num_threads) in states.items():
        folder = tmp_path / "proc" / pid
        folder.mkdir(parents=True)
        status = f"Name:\tx\nUid:\t{user_id}\t{user_id}\t0\t0\nThreads:\t{num_threads}\n"
        (folder / "status").write_text(status, encoding="ascii")
    (tmp_path / "proc/self").mkdir()
    assert count_threads(tmp_path, 1000) == 42
    assert count_threads(Path("/"), os.getuid()) >= 1
