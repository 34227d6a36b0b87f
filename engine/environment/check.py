"""A check as data, and the runner that lets no check disturb another."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum

from engine.clock import Clock, SystemClock

RERUN_REMEDY = "Run the checks again; if this one still ends so, the observed text says what to look at."


class CheckStatus(StrEnum):
    """How a check ended. `SKIP` does not apply on this machine; `ERROR` could not be decided."""

    PASS = "pass"
    WARN = "warn"
    FAIL = "fail"
    SKIP = "skip"
    ERROR = "error"


@dataclass(frozen=True)
class Finding:
    """What one check saw.

    Raises:
        ValueError: a warning or a failure names no remedy.
    """

    status: CheckStatus
    observed: str
    remedy: str | None = None

    def __post_init__(self) -> None:
        if self.status in (CheckStatus.WARN, CheckStatus.FAIL) and not self.remedy:
            raise ValueError(f"a finding of status {self.status} needs a remedy: {self.observed}")


@dataclass(frozen=True)
class Check:
    """A question about this machine. `id` is `family.name`; `run` may take seconds, raise or hang."""

    id: str
    title: str
    expected: str
    run: Callable[[], Finding]


@dataclass(frozen=True)
class CheckResult:
    """A check with its answer; `taken_s` is how long it ran, or how long it was waited for."""

    id: str
    title: str
    expected: str
    observed: str
    status: CheckStatus
    remedy: str | None
    taken_s: float


def run_checks(checks: Iterable[Check], timeout_s: float = 10.0, clock: Clock | None = None) -> tuple[CheckResult, ...]:
    """Run all checks at once, each in a daemon thread, and give the results in the order of the checks.

    A check that raises, or is still running `timeout_s` seconds after its start, becomes an `ERROR` result. A
    thread that hangs is left behind and does not keep the process from exiting.
    """
    attempts = [_Attempt(check, clock or SystemClock()) for check in checks]
    return tuple(attempt.result(timeout_s) for attempt in attempts)


class _Attempt:
    """One run of one check in a thread of its own, started at once."""

    def __init__(self, check: Check, clock: Clock) -> None:
        self._check = check
        self._clock = clock
        self._outcome: tuple[Finding, float] | None = None
        self._started_s = clock.monotonic()
        self._thread = threading.Thread(target=self._run, name=f"check-{check.id}", daemon=True)
        self._thread.start()

    def result(self, timeout_s: float) -> CheckResult:
        """Wait until `timeout_s` after the start, and say how the check ended."""
        self._thread.join(max(0.0, self._started_s + timeout_s - self._clock.monotonic()))
        late = (_undecided(f"still running after {timeout_s:g} s"), self._taken_s())
        finding, taken_s = self._outcome or late
        check = self._check
        return CheckResult(
            id=check.id,
            title=check.title,
            expected=check.expected,
            observed=finding.observed,
            status=finding.status,
            remedy=finding.remedy,
            taken_s=taken_s,
        )

    def _run(self) -> None:
        try:
            finding = self._check.run()
        except BaseException as error:  # noqa: BLE001 - the runner's boundary: it becomes the check's result
            finding = _undecided(f"{type(error).__name__}: {error}")
        self._outcome = finding, self._taken_s()

    def _taken_s(self) -> float:
        return self._clock.monotonic() - self._started_s


def _undecided(observed: str) -> Finding:
    return Finding(CheckStatus.ERROR, observed, RERUN_REMEDY)


def judge_at_least(value: float, warn_below: float, fail_below: float) -> CheckStatus:
    """Pass, or warn below the first bound, or fail below the second; a bound itself is met."""
    if value < fail_below:
        return CheckStatus.FAIL
    return CheckStatus.WARN if value < warn_below else CheckStatus.PASS


def format_gb(value_bytes: float) -> str:
    """Bytes as decimal gigabytes: `12.3 GB`."""
    return f"{value_bytes / 1e9:.1f} GB"
