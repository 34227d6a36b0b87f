"""Work in the background, one piece at a time: begun, followed, cancelled and waited for from any thread.

The owner of a `Job` says what its progress is made of and what the work does; what threads need is here.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from engine.errors import ConsoleError

logger = logging.getLogger(__name__)

Progress = TypeVar("Progress")


class JobCancelledError(ConsoleError):
    """The work was cancelled; it comes out of whatever was under way. A ConsoleError, because loading and fetching hand
    those on unchanged."""

    status = 409
    code = "cancelled"


class JobRunningError(ConsoleError):
    """Something else is under way, and there is one at a time."""

    status = 409
    code = "job_running"


class Job(Generic[Progress]):
    """Runs what it is given on a thread called `name`. The work calls `report` and `check`, everyone else the rest.

    `what` begins the sentence that a failure is told with: `the run` gives `the run failed: ...`.
    """

    def __init__(self, name: str, what: str) -> None:
        self._name, self._what = name, what
        self._lock = threading.Lock()
        self._cancelled = threading.Event()
        self._thread: threading.Thread | None = None
        self._progress: Progress | None = None
        self._error: str | None = None

    def start(self, begun: Progress, work: Callable[[], None], cancelled: threading.Event | None = None) -> bool:
        """Begin `work`, whose progress is `begun`, and return at once; False when some is under way, which then goes on
        as it is. `cancelled` is the event that `cancel` sets, for work that hands it on.

        Raises:
            RuntimeError: no further thread may be started; a later start may find room.
        """
        with self._lock:
            if self._progress is not None:
                return False
            self._progress, self._error = begun, None
            self._cancelled = cancelled or threading.Event()  # its own, so that an earlier cancel is not meant for it
            thread = threading.Thread(target=self._run, args=(work,), name=self._name, daemon=True)
            try:
                thread.start()
            except RuntimeError:
                self._progress = None
                raise
            self._thread = thread
        return True

    def progress(self) -> Progress | None:
        """The progress of what is under way; None when nothing is."""
        return self._progress

    @property
    def error(self) -> str | None:
        """Why the last work broke off, or what of it went wrong; None when nothing did, or it was cancelled."""
        return self._error

    @property
    def is_cancelled(self) -> bool:
        """Was what is under way, or else the last work, cancelled."""
        return self._cancelled.is_set()

    def cancel(self) -> None:
        """Have the work end where it looks next."""
        self._cancelled.set()

    def wait(self, timeout_s: float | None = None) -> None:
        """Wait until nothing is under way."""
        thread = self._thread
        if thread is not None:
            thread.join(timeout_s)

    def close(self, timeout_s: float | None = None) -> None:
        """Cancel what is under way, and wait for its end."""
        self.cancel()
        self.wait(timeout_s)

    def report(self, progress: Progress) -> None:
        """How far the work is. Raises as `check` does."""
        self._progress = progress
        self.check()

    def check(self) -> None:
        """Raise JobCancelledError once the work is cancelled."""
        if self._cancelled.is_set():
            raise JobCancelledError(f"{self._what} was cancelled")

    def fail(self, error: Exception) -> None:
        """Tell what went wrong; the work may go on."""
        self._error = explain(error, self._what)

    def _run(self, work: Callable[[], None]) -> None:
        try:
            work()
        except JobCancelledError as cancelled:
            logger.info("%s", cancelled)
        except Exception as error:  # noqa: BLE001 - logged and told
            self.fail(error)
        finally:
            self._progress = None


class JobOwner(Generic[Progress]):
    """What has its work done by one `Job` at a time, and lets others follow it. Every method may be called from any
    thread."""

    def __init__(self, job: Job[Progress]) -> None:
        self._job = job

    def progress(self) -> Progress | None:
        """How far the work under way is; None when nothing is."""
        return self._job.progress()

    @property
    def error(self) -> str | None:
        """Why the last work broke off, or what of it went wrong; None when nothing did, or it was cancelled."""
        return self._job.error

    @property
    def is_cancelled(self) -> bool:
        """Was what is under way, or else the last work, cancelled."""
        return self._job.is_cancelled

    def cancel(self) -> None:
        """Have the work under way end where it looks next; the class says what is kept of it."""
        self._job.cancel()

    def wait(self, timeout_s: float | None = None) -> None:
        """Wait until nothing is under way."""
        self._job.wait(timeout_s)

    def close(self) -> None:
        """Cancel what is under way, and wait for its end."""
        self._job.close()


def explain(error: Exception, what: str) -> str:
    """The sentence for `error`, logged: its own where it has one for the user. Anything else is a bug in `what`, and
    its traceback goes into the log."""
    if isinstance(error, ConsoleError):
        logger.error("%s", error)
        return str(error)
    logger.error("%s failed", what, exc_info=error)
    return f"{what} failed: {type(error).__name__}: {error}"
