from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.environment.check import (
    Check,
    CheckResult,
    CheckStatus,
    Fact,
    Finding,
    RunCancelledError,
    Shared,
    format_gb,
    result_from,
    run_checks,
    severity,
    worst,
)
from tests.engine.environment.builders import check, passing
from tests.fakes import FakeClock, wait_until


def raising() -> Finding:
    raise RuntimeError("the tool is broken")


def exiting() -> Finding:
    raise SystemExit(3)


def interrupting() -> Finding:
    raise KeyboardInterrupt


def giving(value: object) -> Callable[[], Finding]:
    return lambda: value  # type: ignore[return-value]


class Gate:
    """A check that hangs until it is let go."""

    def __init__(self) -> None:
        self.opened = threading.Event()
        self.is_over = threading.Event()

    def __call__(self) -> Finding:
        self.opened.wait(20)
        self.is_over.set()
        return Finding(CheckStatus.PASS, "late")


@pytest.fixture
def gate() -> Any:
    one = Gate()
    yield one
    one.opened.set()


def test_results_carry_the_check_and_keep_its_order() -> None:
    results = run_checks([check("test.b"), check("test.a")])
    assert [result.id for result in results] == ["test.b", "test.a"]
    first = results[0]
    assert (first.title, first.expected, first.observed) == ("Test.B", "to end", "fine")
    assert (first.status, first.remedy, first.family) == (CheckStatus.PASS, None, "test")
    assert 0 <= first.taken_s < 5


def test_the_order_is_that_of_the_checks_though_the_first_ends_last() -> None:
    second_is_over = threading.Event()

    def first() -> Finding:
        assert second_is_over.wait(5)
        return passing()

    seen: list[str] = []

    def note(result: CheckResult) -> None:
        seen.append(result.id)
        second_is_over.set()

    results = run_checks([check("test.first", first), check("test.second")], on_result=note)
    assert [result.id for result in results] == ["test.first", "test.second"]
    assert seen == ["test.second", "test.first"]


def test_nothing_to_check_is_no_result() -> None:
    assert run_checks([]) == ()


@pytest.mark.parametrize(
    ("run", "observed"),
    [
        (raising, "RuntimeError: the tool is broken"),
        (exiting, "SystemExit: 3"),
        (interrupting, "KeyboardInterrupt: "),
        (giving(None), "TypeError: the check gave None in place of a finding"),
        (giving("pass"), "TypeError: the check gave 'pass' in place of a finding"),
    ],
)
def test_a_check_that_raises_or_gives_nonsense_is_an_error_and_disturbs_no_other(
    run: Callable[[], Finding], observed: str
) -> None:
    broken, fine = run_checks([check("test.broken", run), check("test.fine")])
    assert (broken.status, broken.observed) == (CheckStatus.ERROR, observed)
    assert broken.remedy is not None
    assert fine.status is CheckStatus.PASS


def test_a_check_that_hangs_is_an_error_after_its_own_timeout(gate: Gate) -> None:
    started_s = time.monotonic()
    short, long, fine = run_checks(
        [check("test.short", gate, 0.5), check("test.long", gate, 1.0), check("test.fine", timeout_s=10)]
    )
    assert 1.0 <= time.monotonic() - started_s < 8
    assert [result.status for result in (short, long, fine)] == [CheckStatus.ERROR, CheckStatus.ERROR, CheckStatus.PASS]
    assert (short.observed, long.observed) == ("still running after 0.5 s", "still running after 1 s")
    assert short.taken_s >= 0.5
    assert long.taken_s >= 1.0
    assert fine.taken_s < short.taken_s


def test_a_run_ends_when_all_have_ended_not_at_the_timeout() -> None:
    started_s = time.monotonic()
    run_checks([check(f"test.{number}", timeout_s=60) for number in range(8)])
    assert time.monotonic() - started_s < 20


def test_the_timeout_follows_the_clock(gate: Gate) -> None:
    clock = FakeClock()
    threading.Timer(0.1, clock.advance, [30.0]).start()
    (hung,) = run_checks([check("test.hung", gate, timeout_s=30)], clock)
    assert (hung.observed, hung.taken_s) == ("still running after 30 s", 30.0)


def test_what_comes_after_the_timeout_changes_nothing(gate: Gate) -> None:
    seen: list[CheckResult] = []
    results = run_checks([check("test.late", gate, 0.05)], on_result=seen.append)
    gate.opened.set()
    assert gate.is_over.wait(5)
    time.sleep(0.1)
    assert [result.status for result in (*results, *seen)] == [CheckStatus.ERROR] * 2


def test_each_result_is_told_once_and_on_the_callers_thread() -> None:
    told: list[tuple[str, int]] = []
    checks = [check(f"test.{number}", raising if number % 3 == 0 else None) for number in range(24)]
    run_checks(checks, on_result=lambda result: told.append((result.id, threading.get_ident())))
    assert sorted(name for name, _ in told) == sorted(check.id for check in checks)
    assert {thread for _, thread in told} == {threading.get_ident()}


def test_cancelling_ends_the_run_at_once(gate: Gate) -> None:
    is_cancelled = threading.Event()
    cancelled_at_s: list[float] = []

    def cancel() -> None:
        cancelled_at_s.append(time.monotonic())
        is_cancelled.set()

    threading.Timer(0.15, cancel).start()
    with pytest.raises(RunCancelledError):
        run_checks([check("test.hung", gate, 60), check("test.fine")], is_cancelled=is_cancelled.is_set)
    assert time.monotonic() - cancelled_at_s[0] < 0.3


def test_a_hung_check_does_not_keep_the_process_alive() -> None:
    script = (
        "import threading\n"
        "from engine.environment.check import Check, run_checks\n"
        "hang = Check('a.b', 'Hang', 'to end', threading.Event().wait, timeout_s=0.05)\n"
        "print(run_checks([hang])[0].status)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=True)
    assert (done.stdout, done.stderr) == ("error\n", "")


def test_a_machine_that_grants_no_thread_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    start = threading.Thread.start

    def refuse_one(thread: threading.Thread) -> None:
        if thread.name == "check-test.refused":
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse_one)
    refused, fine = run_checks([check("test.refused"), check("test.fine")])
    assert (refused.status, refused.observed) == (CheckStatus.ERROR, "not run: can't start new thread")
    assert fine.status is CheckStatus.PASS


@given(observed=st.text(st.characters(exclude_categories=())), number=st.floats())
def test_what_no_form_of_the_report_can_carry_is_left_out(observed: str, number: float) -> None:
    finding = Finding(CheckStatus.WARN, observed, f"Mend {observed}", {"number": number, "text": observed, "n": 3})
    (result,) = run_checks([Check("test.text", "Text", "any", lambda: finding)])
    for text in (result.observed, result.remedy, result.facts["text"]):
        assert isinstance(text, str)
        text.encode()
        assert "\x1b" not in text
        assert "\0" not in text
    assert result.facts["number"] is None or float("-inf") < float(result.facts["number"]) < float("inf")
    assert result.facts["n"] == 3
    if observed.isprintable():
        assert result.observed == observed


@pytest.mark.parametrize("status", [CheckStatus.WARN, CheckStatus.FAIL])
def test_what_is_not_right_needs_a_remedy(status: CheckStatus) -> None:
    with pytest.raises(ValueError, match="needs a remedy"):
        Finding(status, "broken")
    assert Finding(status, "broken", "repair it").remedy == "repair it"


def test_a_shared_reading_is_taken_once() -> None:
    taken: list[int] = []
    everyone_asks = threading.Barrier(8)

    def read() -> int:
        taken.append(threading.get_ident())
        time.sleep(0.05)
        return 42

    shared = Shared(read)
    answers: list[int] = []

    def ask() -> None:
        everyone_asks.wait(5)
        answers.append(shared())

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(5)
    assert answers == [42] * 8
    assert len(taken) == 1


def test_a_shared_reading_of_none_is_taken_once() -> None:
    taken: list[int] = []
    shared = Shared(lambda: taken.append(1))
    assert [shared(), shared()] == [None, None]
    assert taken == [1]


def test_a_shared_error_is_raised_for_each_that_asks() -> None:
    taken: list[int] = []

    def read() -> Finding:
        taken.append(1)
        raise OSError("no such device")

    shared = Shared(read)
    results = run_checks([check(f"test.{number}", shared) for number in range(4)])
    assert [result.observed for result in results] == ["OSError: no such device"] * 4
    assert taken == [1]


def test_a_shared_reading_that_hangs_takes_only_those_that_ask(gate: Gate) -> None:
    shared = Shared(gate)
    *hung, fine = run_checks([check("test.a", shared, 0.1), check("test.b", shared, 0.1), check("test.fine")])
    assert [result.status for result in hung] == [CheckStatus.ERROR] * 2
    assert fine.status is CheckStatus.PASS
    gate.opened.set()
    names = {"check-test.a", "check-test.b"}
    wait_until(lambda: names.isdisjoint(thread.name for thread in threading.enumerate()))


@pytest.mark.parametrize(
    ("found", "expected"),
    [("pass skip", "pass"), ("warn pass", "warn"), ("warn error", "error"), ("error fail", "fail"), ("skip", "skip")],
)
def test_worst(found: str, expected: str) -> None:
    assert worst(map(CheckStatus, found.split())) == expected


def test_the_worst_of_nothing_is_a_skip() -> None:
    assert worst([]) is CheckStatus.SKIP


@given(st.dictionaries(st.text(), st.none() | st.booleans() | st.integers() | st.text()))
def test_a_result_comes_back_from_plain_data(facts: dict[str, Fact]) -> None:
    (result,) = run_checks([Check("a.b", "A", "b", lambda: Finding(CheckStatus.SKIP, "none here", None, facts))])
    assert result_from({**vars(result), "status": str(result.status)}) == result


def test_gigabytes_are_decimal() -> None:
    assert format_gb(12_340_000_000) == "12.3 GB"


def test_a_lack_fails_only_what_is_required() -> None:
    assert (severity(True), severity(False)) == (CheckStatus.FAIL, CheckStatus.WARN)
