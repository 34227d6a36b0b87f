from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from engine.scheduling.router import Breaker, BreakerRules, BreakerState

RULES = BreakerRules(failures_to_open=3, open_s=5.0, longest_open_s=12.0)


def opened(now_s: float = 100.0) -> Breaker:
    breaker = Breaker()
    for _ in range(RULES.failures_to_open):
        breaker = breaker.sent(now_s).failed(now_s, RULES, was_trial=False)
    return breaker


def test_it_opens_at_the_third_failure_in_a_row() -> None:
    breaker = Breaker()
    for number in range(1, 4):
        assert breaker.state(0.0) is BreakerState.CLOSED
        breaker = breaker.failed(0.0, RULES, was_trial=False)
        assert breaker.num_failures == number
    assert breaker.state(0.0) is BreakerState.OPEN
    assert not breaker.allows(4.999)


def test_a_success_between_begins_the_count_anew() -> None:
    breaker = Breaker()
    for _ in range(5):
        breaker = breaker.failed(0.0, RULES, was_trial=False).failed(0.0, RULES, was_trial=False)
        breaker = breaker.succeeded(was_trial=False)
    assert breaker == Breaker()


def test_half_open_lets_one_trial_pass_and_its_success_closes() -> None:
    breaker = opened(100.0)
    assert breaker.state(105.0) is BreakerState.HALF_OPEN
    trying = breaker.sent(105.0)
    assert trying.has_trial
    assert not trying.allows(105.0)
    assert trying.succeeded(was_trial=True) == Breaker()


def test_a_failed_trial_opens_it_for_twice_as_long_up_to_a_bound() -> None:
    breaker, now_s = opened(100.0), 105.0
    for pause_s in (10.0, 12.0, 12.0):
        breaker = breaker.sent(now_s).failed(now_s, RULES, was_trial=True)
        assert breaker.pause_s == pause_s
        assert breaker.state(now_s + pause_s - 0.001) is BreakerState.OPEN
        now_s += pause_s
        assert breaker.allows(now_s)


def test_a_trial_that_says_nothing_leaves_room_for_the_next() -> None:
    breaker = opened(100.0).sent(105.0).abandoned(was_trial=True)
    assert breaker.allows(105.0)


def test_what_was_sent_before_it_opened_counts_no_more() -> None:
    breaker = opened(100.0)
    assert breaker.failed(101.0, RULES, was_trial=False) == breaker
    assert breaker.succeeded(was_trial=False) == breaker
    trying = breaker.sent(105.0)
    assert trying.abandoned(was_trial=False) == trying


@given(st.lists(st.sampled_from(["send", "succeed", "fail", "leave", "wait"]), max_size=60))
def test_at_most_one_trial_and_never_a_request_while_open(steps: list[str]) -> None:
    breaker, now_s, trials, others = Breaker(), 0.0, 0, 0
    for step in steps:
        if step == "wait":
            now_s += 3.0
        elif step == "send" and breaker.allows(now_s):
            was_closed = breaker.state(now_s) is BreakerState.CLOSED
            breaker = breaker.sent(now_s)
            trials, others = (trials, others + 1) if was_closed else (trials + 1, others)
        elif step in ("succeed", "fail", "leave") and trials + others:
            was_trial = trials > 0
            trials, others = (trials - 1, others) if was_trial else (trials, others - 1)
            if step == "succeed":
                breaker = breaker.succeeded(was_trial=was_trial)
            elif step == "fail":
                breaker = breaker.failed(now_s, RULES, was_trial=was_trial)
            else:
                breaker = breaker.abandoned(was_trial=was_trial)
        assert trials <= 1
        assert breaker.has_trial == (trials == 1)
        assert (breaker.open_until_s is None) == (breaker.state(now_s) is BreakerState.CLOSED)
        if breaker.state(now_s) is BreakerState.OPEN:
            assert not breaker.allows(now_s)
