from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.environment import report as report_module
from engine.environment.check import Check, Finding
from engine.environment.context import CheckContext
from engine.environment.profile import NO_DEMANDS
from engine.environment.runs import EnvironmentRuns, RunProgress
from engine.errors import ProfileError, StoreError
from engine.state.database import Database, open_database
from tests.engine.environment.builders import check, fake_nvml, passing, result, use_checks
from tests.fakes import wait_until


class Gate:
    """A check that hangs until it is let go; counts how often it was begun."""

    def __init__(self) -> None:
        self.opened = threading.Event()
        self.num_begun = 0

    def __call__(self) -> Finding:
        self.num_begun += 1
        self.opened.wait(20)
        return passing()


@pytest.fixture
def gate() -> Iterator[Gate]:
    one = Gate()
    yield one
    one.opened.set()


@pytest.fixture
def database() -> Iterator[Database]:
    with open_database("sqlite://") as database:
        yield database


@pytest.fixture
def context(tmp_path: Path) -> CheckContext:
    return CheckContext(NO_DEMANDS, tmp_path, fake_nvml("NVIDIA H200"))


@pytest.fixture
def runs(context: CheckContext, database: Database) -> Iterator[EnvironmentRuns]:
    one = EnvironmentRuns(context, database, "cpu-laptop")
    yield one
    one.close()


def finish(runs: EnvironmentRuns) -> None:
    runs.wait(10)
    assert runs.progress() is None


def take(runs: EnvironmentRuns) -> None:
    assert runs.start()
    finish(runs)


def test_before_the_first_run_there_is_nothing(runs: EnvironmentRuns) -> None:
    assert runs.latest() is None
    assert runs.progress() is None
    assert runs.error is None
    runs.wait(0)
    runs.cancel()


def test_a_run_gives_a_report_and_keeps_it(monkeypatch: pytest.MonkeyPatch, runs: EnvironmentRuns) -> None:
    use_checks(monkeypatch, check("host.a"), check("gpu.b"))
    take(runs)
    report = runs.latest()
    assert report is not None
    assert ([check.id for check in report.checks], report.profile) == (["host.a", "gpu.b"], "cpu-laptop")
    assert runs.history.latest() == report
    assert runs.error is None


def test_the_last_report_is_there_after_a_restart(
    monkeypatch: pytest.MonkeyPatch,
    runs: EnvironmentRuns,
    context: CheckContext,
    database: Database,
) -> None:
    use_checks(monkeypatch, check("host.a"))
    take(runs)
    assert EnvironmentRuns(context, database).latest() == runs.latest()


def test_progress_grows(monkeypatch: pytest.MonkeyPatch, runs: EnvironmentRuns, gate: Gate) -> None:
    turns = [Gate() for _ in range(3)]
    use_checks(monkeypatch, *(check(f"host.{name}", turn, 30) for name, turn in zip("abc", turns, strict=True)))
    assert runs.start()
    seen: list[RunProgress] = []
    for num_done, turn in enumerate(turns):
        wait_until(lambda num=num_done: len((runs.progress() or seen[-1]).results) == num)  # type: ignore[misc]
        progress = runs.progress()
        assert progress is not None
        seen.append(progress)
        turn.opened.set()
    finish(runs)
    assert [progress.running for progress in seen] == [
        ("Host.A", "Host.B", "Host.C"),
        ("Host.B", "Host.C"),
        ("Host.C",),
    ]
    assert [round(progress.ratio, 2) for progress in seen] == [0.0, 0.33, 0.67]
    assert [check.id for check in seen[-1].results] == ["host.a", "host.b"]


def test_checks_of_the_same_title_end_one_by_one(
    monkeypatch: pytest.MonkeyPatch, runs: EnvironmentRuns, gate: Gate
) -> None:
    one = Check("host.memory", "Memory", "any", passing)
    use_checks(monkeypatch, one, Check("gpu.memory", "Memory", "any", gate, 30))
    runs.start()
    wait_until(lambda: bool((progress := runs.progress()) and progress.results))
    progress = runs.progress()
    assert progress is not None
    assert (progress.running, progress.ratio) == (("Memory",), 0.5)


def test_a_run_of_nothing_is_complete() -> None:
    assert RunProgress("x", False, (), ()).ratio == 1.0
    assert RunProgress("x", False, (), (result(),)).ratio == 1.0


def test_one_run_at_a_time(monkeypatch: pytest.MonkeyPatch, runs: EnvironmentRuns, gate: Gate) -> None:
    use_checks(monkeypatch, check("host.a", gate, 30))
    assert runs.start()
    assert not runs.start("autoglm-9b")
    progress = runs.progress()
    assert progress is not None
    assert progress.profile == "cpu-laptop"
    gate.opened.set()
    finish(runs)
    assert runs.start()
    finish(runs)
    assert gate.num_begun == 2


def test_of_eight_starts_at_once_one_runs(monkeypatch: pytest.MonkeyPatch, runs: EnvironmentRuns, gate: Gate) -> None:
    use_checks(monkeypatch, check("host.a", gate, 30))
    together = threading.Barrier(8)
    begun: list[bool] = []

    def start() -> None:
        together.wait(5)
        begun.append(runs.start())

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert sorted(begun) == [False] * 7 + [True]
    gate.opened.set()
    finish(runs)
    assert gate.num_begun == 1
    assert len(runs.history.list()) == 1


def test_progress_read_by_many_while_it_is_written(monkeypatch: pytest.MonkeyPatch, runs: EnvironmentRuns) -> None:
    num_checks = 60
    use_checks(monkeypatch, *(check(f"host.{number}") for number in range(num_checks)))
    is_over = threading.Event()
    wrong: list[RunProgress] = []

    def watch() -> None:
        num_done = 0
        while not is_over.is_set():
            progress = runs.progress()
            if progress is not None:
                if len(progress.running) + len(progress.results) != num_checks or len(progress.results) < num_done:
                    wrong.append(progress)
                num_done = len(progress.results)

    threads = [threading.Thread(target=watch) for _ in range(3)]
    for thread in threads:
        thread.start()
    runs.start()
    runs.wait(20)
    is_over.set()
    for thread in threads:
        thread.join(5)
    assert wrong == []
    report = runs.latest()
    assert report is not None
    assert len(report.checks) == num_checks


def test_cancelling_leaves_the_former_report(
    monkeypatch: pytest.MonkeyPatch, runs: EnvironmentRuns, gate: Gate
) -> None:
    use_checks(monkeypatch, check("host.a"))
    take(runs)
    before = runs.latest()
    use_checks(monkeypatch, check("host.a", gate, 30))
    runs.start()
    runs.cancel()
    finish(runs)
    assert runs.latest() is before
    assert len(runs.history.list()) == 1
    assert runs.error is None


def test_cancelling_nothing_does_not_cancel_the_next_run(
    monkeypatch: pytest.MonkeyPatch, runs: EnvironmentRuns
) -> None:
    use_checks(monkeypatch, check("host.a"))
    runs.cancel()
    take(runs)
    assert runs.latest() is not None
    assert runs.error is None


def test_a_report_that_cannot_be_kept_is_shown_and_told(
    monkeypatch: pytest.MonkeyPatch, runs: EnvironmentRuns, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    use_checks(monkeypatch, check("host.a"))
    with database.begin() as connection:
        connection.exec_driver_sql("PRAGMA query_only = ON")
    take(runs)
    assert runs.latest() is not None
    assert runs.error is not None
    assert "make the file and its folder writable" in runs.error
    assert "make the file and its folder writable" in caplog.text
    with database.begin() as connection:
        connection.exec_driver_sql("PRAGMA query_only = OFF")
    take(runs)
    assert runs.error is None
    assert len(runs.history.list()) == 1


def test_a_family_that_cannot_be_built_is_told_and_the_next_run_is_free(
    monkeypatch: pytest.MonkeyPatch, runs: EnvironmentRuns, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(context: CheckContext) -> tuple[Check, ...]:
        raise KeyError("cores")

    monkeypatch.setattr(report_module, "FAMILIES", {"host": ("Host", broken)})
    assert runs.start()
    assert runs.progress() is None
    assert runs.error == "The run failed: KeyError: 'cores'"
    assert "KeyError" in caplog.text
    use_checks(monkeypatch, check("host.a"))
    take(runs)
    assert runs.error is None
    assert runs.latest() is not None


def test_a_run_that_breaks_midway_is_told_and_the_next_run_is_free(
    monkeypatch: pytest.MonkeyPatch, runs: EnvironmentRuns
) -> None:
    def collect(*_: object) -> object:
        raise RuntimeError("broken")

    use_checks(monkeypatch, check("host.a"))
    with monkeypatch.context() as patched:
        patched.setattr("engine.environment.runs.collect_report", collect)
        take(runs)
    assert runs.error == "The run failed: RuntimeError: broken"
    take(runs)
    assert runs.error is None


def test_a_machine_that_grants_no_thread_is_told_so(monkeypatch: pytest.MonkeyPatch, runs: EnvironmentRuns) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    use_checks(monkeypatch, check("host.a"))
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        assert runs.start()
    assert runs.progress() is None
    assert runs.error == "The run failed: RuntimeError: can't start new thread"
    take(runs)


def test_a_profile_there_is_not_is_refused_before_a_run_begins(runs: EnvironmentRuns) -> None:
    with pytest.raises(ProfileError, match="there is no profile 'x'"):
        runs.start("x")
    assert runs.progress() is None


def test_a_run_of_deep_checks(monkeypatch: pytest.MonkeyPatch, runs: EnvironmentRuns) -> None:
    use_checks(monkeypatch, check("host.a"), check("gpu.b"), check("gpu.slow", is_deep=True))
    assert runs.start("autoglm-9b", is_deep=True)
    finish(runs)
    report = runs.latest()
    assert report is not None
    assert [check.id for check in report.checks] == ["host.a", "gpu.b", "gpu.slow"]
    assert (report.profile, report.is_deep) == ("autoglm-9b", True)


def test_closing_ends_in_time_though_a_check_hangs(
    monkeypatch: pytest.MonkeyPatch, runs: EnvironmentRuns, gate: Gate
) -> None:
    use_checks(monkeypatch, check("host.a", gate, 60))
    runs.start()
    wait_until(lambda: gate.num_begun == 1)
    started_s = time.monotonic()
    runs.close()
    assert time.monotonic() - started_s < 10
    assert runs.progress() is None
    assert not [thread for thread in threading.enumerate() if thread.name == "environment-run"]


def test_the_checks_see_the_profile_that_was_asked_for(monkeypatch: pytest.MonkeyPatch, runs: EnvironmentRuns) -> None:
    seen: list[CheckContext] = []

    def build(context: CheckContext) -> tuple[Check, ...]:
        seen.append(context)
        return (check("host.a"),)

    monkeypatch.setattr(report_module, "FAMILIES", {"host": ("Host", build)})
    runs.start("autoglm-9b")
    finish(runs)
    assert seen[0].profile.gpu.memory_gb.recommend == 40


@pytest.mark.parametrize(
    ("setting", "gpus", "name"),
    [
        ("auto", (), "cpu-laptop"),
        ("auto", ("NVIDIA H200",), "h100-h200-node"),
        ("auto", ("NVIDIA L4",), "single-gpu-24gb"),
        ("autoglm-9b", ("NVIDIA H200",), "autoglm-9b"),
    ],
)
def test_the_profile_of_a_run_that_names_none(
    setting: str, gpus: tuple[str, ...], name: str, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nvml = fake_nvml(*gpus)
    runs = EnvironmentRuns(CheckContext(NO_DEMANDS, tmp_path, nvml), database, setting)
    assert runs.default_profile() == name
    use_checks(monkeypatch, check("host.a"))
    take(runs)
    report = runs.latest()
    assert report is not None
    assert report.profile == name


def test_a_default_profile_that_is_not_there(context: CheckContext, database: Database) -> None:
    with pytest.raises(ProfileError, match="there is no profile 'gone'"):
        EnvironmentRuns(context, database, "gone").start()


def test_a_history_that_cannot_be_opened_is_told(context: CheckContext) -> None:
    with open_database("sqlite://") as database:
        with database.begin() as connection:
            connection.exec_driver_sql("PRAGMA query_only = ON")
        with pytest.raises(StoreError, match="readonly"):
            EnvironmentRuns(context, database)
