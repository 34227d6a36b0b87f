"""Runs of the checks inside a console: one at a time, in the background, with progress, and a history."""

from __future__ import annotations

import threading
from contextlib import suppress
from dataclasses import dataclass, replace

from engine.environment.check import CheckResult, RunCancelledError
from engine.environment.context import CheckContext
from engine.environment.history import ReportHistory
from engine.environment.profile import AUTO, choose_profile, resolve_profile
from engine.environment.report import EnvironmentReport, collect_report, plan_checks
from engine.errors import ConsoleError
from engine.job import Job, JobOwner
from engine.state.database import Database


@dataclass(frozen=True)
class RunProgress:
    """A run that is under way: what is still `running` by title, and the results so far in the order they came."""

    profile: str
    is_deep: bool
    running: tuple[str, ...]
    results: tuple[CheckResult, ...] = ()

    @property
    def ratio(self) -> float:
        """The share of checks that have ended, 0 to 1."""
        total = len(self.running) + len(self.results)
        return len(self.results) / total if total else 1.0


class EnvironmentRuns(JobOwner[RunProgress]):
    """Starts runs, follows them, and remembers their reports. One that is cancelled leaves no report, and what its
    checks began on the GPUs ends; `error` also says why a report was not kept.

    `context` is what the runs look at; each puts its profile in. `default_profile` is the setting, `auto` for the one
    that fits the GPUs here.
    """

    def __init__(self, context: CheckContext, database: Database, default_profile: str = AUTO) -> None:
        super().__init__(Job("environment-run", "The run"))
        self._context = context
        self._default_profile = default_profile
        self.history = ReportHistory(database)
        self._latest: EnvironmentReport | None = self.history.latest()

    def start(self, profile: str | None = None, is_deep: bool = False) -> bool:
        """Begin a run and return at once; False when one is under way, which then goes on as it is.

        A run that cannot even be planned has ended when this returns, and `error` says why.

        Raises:
            ProfileError: there is no such profile, or it is wrong.
        """
        if self._job.progress() is not None:
            return False
        try:
            context, name = self._resolve(profile)
            planned = RunProgress(name, is_deep, tuple(check.title for check in plan_checks(context, is_deep=is_deep)))
            return self._job.start(planned, lambda: self._collect(planned, context), context.cancelled)
        except ConsoleError as error:
            self._job.fail(error)
            raise
        except Exception as error:  # noqa: BLE001 - told: a family that cannot be built, or no room for a thread
            self._job.fail(error)
            return True

    def latest(self) -> EnvironmentReport | None:
        """The report of the last run that ended; None before the first."""
        return self._latest

    def default_profile(self) -> str:
        """The profile of a run that names none."""
        wanted = self._default_profile
        return choose_profile(self._context.nvml.read()) if wanted == AUTO else wanted

    def _resolve(self, profile: str | None) -> tuple[CheckContext, str]:
        wanted = profile or self._default_profile
        name, found = resolve_profile(wanted, self._context.home, self._context.nvml)
        return replace(self._context, profile=found, cancelled=threading.Event()), name

    def _collect(self, planned: RunProgress, context: CheckContext) -> None:
        with suppress(RunCancelledError):
            self._latest = collect_report(context, planned.profile, None, planned.is_deep, self._note)
            self.history.keep(self._latest)

    def _note(self, result: CheckResult) -> None:
        progress = self._job.progress()
        if progress is not None:
            running = list(progress.running)
            running.remove(result.title)  # the first of that title: titles need not be unique
            self._job.report(replace(progress, running=tuple(running), results=(*progress.results, result)))
