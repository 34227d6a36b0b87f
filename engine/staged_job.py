"""A job in the background that ends with one report: its stage is followed, and it is told apart from what came
before it. What the work is, its owner says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from engine.clock import Clock
from engine.job import Job, JobOwner, JobRunningError

Report = TypeVar("Report")
OnProgress = Callable[[str, float | None], None]


@dataclass(frozen=True, slots=True)
class StageProgress:
    """What is under way: `fraction` of the stage, None while it is not known; `began_at_s` in seconds since the
    epoch."""

    subject: str
    stage: str
    fraction: float | None
    began_at_s: float


class StagedJob(JobOwner[StageProgress], Generic[Report]):
    """Runs one piece of work at a time."""

    def __init__(self, name: str, what: str, clock: Clock) -> None:
        super().__init__(Job(name, what))
        self._what, self._clock = what, clock
        self._report: Report | None = None
        self._subject: str | None = None

    @property
    def subject(self) -> str | None:
        """What the work under way, or else the last one, is about; None before the first."""
        return self._subject

    def report(self) -> Report | None:
        """What the last work came to; None before the first, while one is under way, and where it gave nothing."""
        return self._report

    def _start(self, subject: str, work: Callable[[OnProgress], Report]) -> None:
        """Begin `work` on `subject`; what is under way on it already goes on as it is.

        Raises:
            JobRunningError: another one is under way.
        """
        begun = StageProgress(subject, "beginning", None, self._clock.wall())
        if self._job.start(begun, lambda: self._run(begun, work)):
            return
        running = self._job.progress()
        if running is not None and running.subject != subject:
            raise JobRunningError(f"{self._what} of {running.subject} is under way: wait for its end, or cancel it")

    def _run(self, begun: StageProgress, work: Callable[[OnProgress], Report]) -> None:
        def tell(stage: str, fraction: float | None) -> None:
            self._job.report(replace(begun, stage=stage, fraction=fraction))

        self._report, self._subject = None, begun.subject
        self._report = work(tell)
