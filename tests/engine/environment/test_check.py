from __future__ import annotations

import subprocess
import sys
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.environment.check import (
    Check,
    CheckStatus,
    Finding,
    format_gb,
    judge_at_least,
    run_checks,
)

numbers = st.floats(min_value=0, max_value=1e15)


def check(name: str, run: object) -> Check:
    return Check(f"test.{name}", name.title(), "to end", run)  # type: ignore[arg-type]


def passing() -> Finding:
    return Finding(CheckStatus.PASS, "fine")


def raising() -> Finding:
    raise RuntimeError("the tool is broken")


def exiting() -> Finding:
    raise SystemExit(3)


def test_results_carry_the_check_and_keep_its_order() -> None:
    results = run_checks([check("b", passing), check("a", passing)])
    assert [result.id for result in results] == ["test.b", "test.a"]
    first = results[0]
    assert (first.title, first.expected, first.observed) == ("B", "to end", "fine")
    assert (first.status, first.remedy) == (CheckStatus.PASS, None)
    assert 0 <= first.taken_s < 5


@pytest.mark.parametrize(
    ("run", "observed"),
    [(raising, "RuntimeError: the tool is broken"), (exiting, "SystemExit: 3")],
)
def test_a_check_that_raises_is_an_error_and_disturbs_no_other(run: object, observed: str) -> None:
    broken, fine = run_checks([check("broken", run), check("fine", passing)])
    assert (broken.status, broken.observed) == (CheckStatus.ERROR, observed)
    assert broken.remedy is not None
    assert fine.status is CheckStatus.PASS


def test_a_check_that_hangs_is_an_error_after_its_own_timeout() -> None:
    release = threading.Event()

    def hang() -> Finding:
        release.wait(20)
        return passing()

    started_s = time.monotonic()
    hung, also_hung, fine = run_checks(
        [check("hung", hang), check("also", hang), check("fine", passing)], timeout_s=0.2
    )
    release.set()
    assert time.monotonic() - started_s < 5
    assert hung.status is also_hung.status is CheckStatus.ERROR
    assert hung.observed == "still running after 0.2 s"
    assert hung.taken_s >= 0.2
    assert fine.status is CheckStatus.PASS


def test_a_hung_check_does_not_keep_the_process_alive() -> None:
    script = (
        "import threading\n"
        "from engine.environment.check import Check, run_checks\n"
        "hang = Check('a.b', 'Hang', 'to end', threading.Event().wait)\n"
        "print(run_checks([hang], timeout_s=0.05)[0].status)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout == "error\n"


@pytest.mark.parametrize("status", [CheckStatus.WARN, CheckStatus.FAIL])
def test_what_is_not_right_needs_a_remedy(status: CheckStatus) -> None:
    with pytest.raises(ValueError, match="needs a remedy"):
        Finding(status, "broken")
    assert Finding(status, "broken", "repair it").remedy == "repair it"


@given(value=numbers, bounds=st.tuples(numbers, numbers))
def test_judging_follows_the_bounds(value: float, bounds: tuple[float, float]) -> None:
    fail_below, warn_below = sorted(bounds)
    status = judge_at_least(value, warn_below, fail_below)
    assert (status is CheckStatus.FAIL) is (value < fail_below)
    assert (status is CheckStatus.PASS) is (value >= warn_below)
    assert status in (CheckStatus.PASS, CheckStatus.WARN, CheckStatus.FAIL)


def test_gigabytes_are_decimal() -> None:
    assert format_gb(12_340_000_000) == "12.3 GB"
