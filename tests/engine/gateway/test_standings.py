from __future__ import annotations

import pytest

from engine.errors import InstanceNotReadyError, InvalidRequestError
from engine.gateway.standings import WINDOW_S, Recent, Standings
from engine.inference.request import Finished, FinishReason, Timing
from engine.remote.answer import RemoteFinished
from engine.remote.trouble import RemoteError
from engine.scheduling.router import BreakerRules, BreakerState
from tests.fakes import FakeClock

ANSWERED = Finished("r", FinishReason.STOP, 1, 2, 0, Timing(0.0, 10.0, None, 10.25, 11.0, 12.0))
BROKEN = RemoteFinished("r", FinishReason.ERROR, 0, 0, 0, Timing(0.0, 10.0), "it broke", cause=RemoteError("it broke"))
WRONG = RemoteFinished("r", FinishReason.ERROR, 0, 0, 0, Timing(0.0, 10.0), "no", cause=InvalidRequestError("no"))


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def standings(clock: FakeClock) -> Standings:
    return Standings(clock, BreakerRules(failures_to_open=2, open_s=5.0))


def fail(standings: Standings, times: int = 2) -> None:
    for _ in range(times):
        standings.end("one", BROKEN, was_trial=standings.begin("one"))


def test_nothing_is_known_of_one_that_was_never_asked(standings: Standings) -> None:
    assert standings.recent("one") == Recent()
    assert standings.breaker("one").allows(0.0)


def test_latencies_and_failures_are_those_of_the_last_five_minutes(standings: Standings, clock: FakeClock) -> None:
    for finished in (ANSWERED, ANSWERED, BROKEN):
        standings.end("one", finished, was_trial=standings.begin("one"))
    assert standings.recent("one") == Recent(2, 1, 0.25, 2.0)
    clock.advance(WINDOW_S + 1)
    assert standings.recent("one") == Recent()


def test_failures_open_the_breaker_and_a_trial_closes_it(standings: Standings, clock: FakeClock) -> None:
    fail(standings)
    assert standings.breaker("one").state(clock.monotonic()) is BreakerState.OPEN
    with pytest.raises(InstanceNotReadyError):
        standings.begin("one")
    clock.advance(5.0)
    assert standings.begin("one")
    with pytest.raises(InstanceNotReadyError, match="being tried by another request"):
        standings.begin("one")
    standings.end("one", ANSWERED, was_trial=True)
    assert standings.breaker("one").state(clock.monotonic()) is BreakerState.CLOSED


@pytest.mark.parametrize("finished", [None, WRONG])
def test_what_says_nothing_of_the_instance_changes_nothing(standings: Standings, finished: Finished | None) -> None:
    for _ in range(5):
        standings.end("one", finished, was_trial=standings.begin("one"))
    assert standings.recent("one") == Recent()
    assert standings.breaker("one").num_failures == 0


def test_one_that_is_asked_past_an_open_breaker_is_no_trial(standings: Standings) -> None:
    fail(standings)
    assert not standings.begin("one", is_chosen=False)


def test_a_forgotten_one_begins_anew(standings: Standings) -> None:
    fail(standings)
    standings.forget("one")
    assert standings.breaker("one").num_failures == 0
