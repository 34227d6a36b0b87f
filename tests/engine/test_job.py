"""One piece of work at a time in the background."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from engine.errors import StoreError
from engine.job import Job, JobCancelledError, explain
from tests.fakes import wait_until


class Work:
    """Counts how often it looks, until it is let go."""

    def __init__(self, job: Job[int]) -> None:
        self.job = job
        self.num_looks = 0
        self.may_end = threading.Event()

    def __call__(self) -> None:
        while not self.may_end.wait(0.001):
            self.num_looks += 1
            self.job.report(self.num_looks)


@pytest.fixture
def job() -> Iterator[Job[int]]:
    one = Job[int]("counting", "the count")
    yield one
    one.close(10)


@pytest.fixture
def work(job: Job[int]) -> Iterator[Work]:
    one = Work(job)
    yield one
    one.may_end.set()


def test_before_the_first_there_is_nothing(job: Job[int]) -> None:
    job.wait(0)
    job.cancel()
    assert (job.progress(), job.error) == (None, None)


def test_it_is_followed_to_its_end(job: Job[int], work: Work) -> None:
    assert job.start(0, work)
    wait_until(lambda: (job.progress() or 0) > 2)
    work.may_end.set()
    job.wait(10)
    assert (job.progress(), job.error, job.is_cancelled) == (None, None, False)


def test_progress_is_there_when_start_returns(job: Job[int]) -> None:
    begun = threading.Event()
    assert job.start(7, lambda: begun.wait(10) and None)
    assert job.progress() == 7
    begun.set()
    job.wait(10)


def test_one_at_a_time(job: Job[int], work: Work) -> None:
    begun: list[bool] = []
    together = threading.Barrier(6)

    def start() -> None:
        together.wait(10)
        begun.append(job.start(0, work))

    threads = [threading.Thread(target=start) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert sorted(begun) == [False] * 5 + [True]


def test_cancelling_ends_what_runs_and_not_what_comes_next(job: Job[int], work: Work) -> None:
    job.start(0, work)
    job.cancel()
    job.wait(10)
    assert (job.progress(), job.error, job.is_cancelled) == (None, None, True)
    job.cancel()
    done: list[int] = []
    assert job.start(0, lambda: done.append(1))
    job.wait(10)
    assert (done, job.is_cancelled) == ([1], False)


def test_an_event_of_the_works_own_is_what_cancel_sets(job: Job[int]) -> None:
    cancelled = threading.Event()
    job.start(0, lambda: cancelled.wait(10) and None, cancelled)
    job.close(10)
    assert cancelled.is_set()
    assert job.progress() is None


def test_what_goes_wrong_is_told_until_the_next_start(job: Job[int], caplog: pytest.LogCaptureFixture) -> None:
    def refuse() -> None:
        raise StoreError("the disk is full")

    job.start(0, refuse)
    job.wait(10)
    assert job.error == "the disk is full"
    assert "Traceback" not in caplog.text
    job.start(0, lambda: 1 // 0 and None)
    job.wait(10)
    assert job.error == "the count failed: ZeroDivisionError: integer division or modulo by zero"
    assert "Traceback" in caplog.text
    job.start(0, lambda: None)
    job.wait(10)
    assert job.error is None


def test_it_may_go_on_after_a_failure(job: Job[int]) -> None:
    done: list[int] = []

    def work() -> None:
        job.fail(StoreError("not kept"))
        done.append(1)

    job.start(0, work)
    job.wait(10)
    assert (job.error, done) == ("not kept", [1])


def test_no_thread_is_no_end(job: Job[int], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="new thread"):
            job.start(0, lambda: None)
    assert job.progress() is None
    assert job.start(0, lambda: None)


def test_closing_ends_the_thread(job: Job[int], work: Work) -> None:
    job.start(0, work)
    job.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "counting"]


def test_a_check_says_what_was_cancelled(job: Job[int]) -> None:
    job.check()
    job.cancel()
    with pytest.raises(JobCancelledError, match="the count was cancelled"):
        job.check()


def test_explaining() -> None:
    assert explain(StoreError("no room"), "it") == "no room"
    assert explain(KeyError("a"), "it") == "it failed: KeyError: 'a'"
