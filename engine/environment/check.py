"""A check as data, and the run that lets no check disturb another."""

from __future__ import annotations

import math
import re
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Generic, TypeVar

from engine.clock import Clock, SystemClock

RERUN_REMEDY = "Run the checks again; if this one still ends so, the observed text says what to look at."
DEFAULT_TIMEOUT_S = 10.0
_POLL_S = 0.05
# Control characters, and the halves of characters by which Python carries bytes that are not UTF-8.
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")

Fact = str | int | float | bool | None
T = TypeVar("T")


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

    `observed` is for people; of a skip it is the reason. `facts` are the same for programs, to be compared with
    another run's: units are in the names (`free_bytes`), None is "cannot be told".

    Raises:
        ValueError: a warning or a failure names no remedy.
    """

    status: CheckStatus
    observed: str
    remedy: str | None = None
    facts: Mapping[str, Fact] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.status in (CheckStatus.WARN, CheckStatus.FAIL) and not self.remedy:
            raise ValueError(f"a finding of status {self.status} needs a remedy: {self.observed}")


@dataclass(frozen=True)
class Check:
    """A question about this machine.

    `id` is `family.name`. `run` may take seconds, raise or hang; after `timeout_s` it is no longer waited for.
    `is_deep` marks what takes long or loads the machine, and runs only when asked for.
    """

    id: str
    title: str
    expected: str
    run: Callable[[], Finding]
    timeout_s: float = DEFAULT_TIMEOUT_S
    is_deep: bool = False

    @property
    def family(self) -> str:
        """The `host` of `host.memory`."""
        return self.id.split(".", 1)[0]


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
    facts: Mapping[str, Fact] = field(default_factory=dict)

    @property
    def family(self) -> str:
        """The `host` of `host.memory`."""
        return self.id.split(".", 1)[0]


class RunCancelledError(Exception):
    """The run was cancelled before every check had ended."""


def run_checks(
    checks: Iterable[Check],
    clock: Clock | None = None,
    on_result: Callable[[CheckResult], None] | None = None,
    is_cancelled: Callable[[], bool] | None = None,
) -> tuple[CheckResult, ...]:
    """Run all checks at once and give the results in the order of the checks.

    Each runs in a daemon thread of its own rather than in a pool of few: one that hangs would take its worker from
    the others. A check that raises, or still runs at the end of its own timeout, becomes an `ERROR` result; its
    thread is left behind and keeps neither the run nor the process from ending. `on_result` is called on the
    caller's thread as each check ends. What a check says is made fit for every form of the report: text without
    control characters, numbers that are finite. Ids have to be unique.

    Raises:
        RunCancelledError: `is_cancelled` said so, at most 50 ms later.
    """
    attempts = [_Attempt(check, clock or SystemClock()) for check in checks]
    results: dict[str, CheckResult] = {}
    ended = threading.Event()
    for attempt in attempts:
        attempt.start(ended)
    pending = attempts
    while pending:
        ended.wait(_POLL_S)
        ended.clear()
        if is_cancelled is not None and is_cancelled():
            raise RunCancelledError
        over = [(attempt, result) for attempt in pending if (result := attempt.result()) is not None]
        for attempt, result in over:
            results[attempt.check.id] = result
            if on_result is not None:
                on_result(result)
        pending = [attempt for attempt in pending if attempt.check.id not in results]
    return tuple(results[attempt.check.id] for attempt in attempts)


class _Attempt:
    """One run of one check in a thread of its own."""

    def __init__(self, check: Check, clock: Clock) -> None:
        self.check = check
        self._clock = clock
        self._outcome: tuple[Finding, float] | None = None
        self._started_s = clock.monotonic()

    def start(self, ended: threading.Event) -> None:
        """Begin; `ended` is set at the end."""
        thread = threading.Thread(target=self._run, args=(ended,), name=f"check-{self.check.id}", daemon=True)
        self._started_s = self._clock.monotonic()
        try:
            thread.start()
        except RuntimeError as error:  # the limit on processes is reached: such machines are checked too
            self._outcome = undecided(f"not run: {error}"), 0.0
            ended.set()

    def result(self) -> CheckResult | None:
        """How the check ended; None while it runs and may."""
        check, outcome = self.check, self._outcome
        if outcome is None:
            if self._taken_s() < check.timeout_s:
                return None
            outcome = undecided(f"still running after {check.timeout_s:g} s"), self._taken_s()
        finding, taken_s = outcome
        return CheckResult(
            id=check.id,
            title=check.title,
            expected=check.expected,
            observed=_printable(finding.observed),
            status=finding.status,
            remedy=None if finding.remedy is None else _printable(finding.remedy),
            taken_s=taken_s,
            facts={name: _plain(value) for name, value in finding.facts.items()},
        )

    def _run(self, ended: threading.Event) -> None:
        try:
            finding = _certain(self.check.run())
        except BaseException as error:  # noqa: BLE001 - the runner's boundary: it becomes the check's result
            finding = undecided(f"{type(error).__name__}: {error}")
        self._outcome = finding, self._taken_s()
        ended.set()

    def _taken_s(self) -> float:
        return self._clock.monotonic() - self._started_s


def _certain(finding: object) -> Finding:
    if not isinstance(finding, Finding):
        raise TypeError(f"the check gave {finding!r} in place of a finding")
    return finding


def _printable(text: str) -> str:
    return _UNPRINTABLE.sub("\ufffd", text)


def _plain(value: Fact) -> Fact:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return _printable(value) if isinstance(value, str) else value


class Shared(Generic[T]):
    """A reading that several checks of one run look at: taken once, by the first that asks. An error is shared too."""

    def __init__(self, read: Callable[[], T]) -> None:
        self._read = read
        self._lock = threading.Lock()
        self._outcome: tuple[T] | Exception | None = None

    def __call__(self) -> T:
        """The reading; waits while another check takes it."""
        with self._lock:
            if self._outcome is None:
                try:
                    self._outcome = (self._read(),)
                except Exception as error:  # noqa: BLE001 - raised below, once for every check that asks
                    self._outcome = error
        if isinstance(self._outcome, Exception):
            raise self._outcome
        return self._outcome[0]


def undecided(observed: str) -> Finding:
    """A check that could not tell."""
    return Finding(CheckStatus.ERROR, observed, RERUN_REMEDY)


def severity(is_required: bool) -> CheckStatus:
    """What a lack counts as: a failure where the profile requires what lacks, else a warning."""
    return CheckStatus.FAIL if is_required else CheckStatus.WARN


def worst(statuses: Iterable[CheckStatus]) -> CheckStatus:
    """The status that counts most; skips count least, and are all that is left of nothing."""
    present = set(statuses)
    return next((status for status in WORST_FIRST if status in present), CheckStatus.SKIP)


WORST_FIRST = (CheckStatus.FAIL, CheckStatus.ERROR, CheckStatus.WARN, CheckStatus.PASS)


def format_gb(value_bytes: float) -> str:
    """Bytes as decimal gigabytes: `12.3 GB`."""
    return f"{value_bytes / 1e9:.1f} GB"


def result_from(data: Mapping[str, Any]) -> CheckResult:
    """A result as `dataclasses.asdict` wrote it."""
    return CheckResult(**{**data, "status": CheckStatus(data["status"])})
