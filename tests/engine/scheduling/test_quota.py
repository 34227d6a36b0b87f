from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import InvalidRequestError
from engine.scheduling.quota import (
    UNKNOWN_WAIT_S,
    Account,
    Limit,
    Quota,
    Refusal,
    admit,
    estimate_tokens,
    hold,
    leave,
    open_account,
    refill,
    reset_s,
    settle,
)

_START_S = 50.0
_quotas = st.builds(
    Quota,
    st.none() | st.integers(1, 600),
    st.none() | st.integers(1, 100_000),
    st.none() | st.integers(1, 8),
)
# A request: how long after the one before it comes, what it may use, what it does use, and how long it takes.
_arrivals = st.lists(
    st.tuples(st.floats(0, 90), st.integers(0, 120_000), st.floats(0, 1), st.floats(0, 200)), max_size=40
)


def _admitted(account: Account | Refusal) -> Account:
    assert isinstance(account, Account)
    return account


def _refused(account: Account | Refusal) -> Refusal:
    assert isinstance(account, Refusal)
    return account


@given(_quotas, _arrivals)
def test_no_window_grants_more_than_the_quota(quota: Quota, arrivals: list[tuple[float, int, float, float]]) -> None:
    now_s, account = _START_S, open_account(quota, _START_S)
    running: list[tuple[float, int, int]] = []
    started: list[tuple[float, float]] = []
    used: list[tuple[float, float]] = []
    for gap_s, estimate, share, lasting_s in arrivals:
        now_s += gap_s
        for end_s, held, spent in sorted(item for item in running if item[0] <= now_s):
            account = leave(settle(account, quota, held, spent, end_s))
            used.append((end_s, spent))
        running = [item for item in running if item[0] > now_s]
        outcome = admit(account, quota, estimate, now_s)
        if isinstance(outcome, Account):
            account = outcome
            started.append((now_s, 1))
            running.append((now_s + lasting_s, estimate, int(estimate * share)))
        assert account.num_running == len(running)
        assert account.held_tokens == sum(held for _, held, _ in running)
        if quota.concurrent_requests is not None:
            assert len(running) <= quota.concurrent_requests
    _assert_bounded(started, quota.requests_per_minute)
    _assert_bounded(used, quota.tokens_per_minute)


def _assert_bounded(events: list[tuple[float, float]], per_minute: int | None) -> None:
    """In every window that begins and ends with an event."""
    if per_minute is None:
        return
    for first, (begin_s, _) in enumerate(events):
        total = 0.0
        for end_s, amount in events[first:]:
            total += amount
            assert total <= per_minute * (1 + (end_s - begin_s) / 60) * (1 + 1e-6)


@given(_quotas, _arrivals)
def test_who_waits_as_long_as_told_is_admitted(quota: Quota, arrivals: list[tuple[float, int, float, float]]) -> None:
    now_s, account = _START_S, open_account(quota, _START_S)
    for gap_s, estimate, share, _ in arrivals:
        now_s += gap_s
        outcome = admit(account, quota, estimate, now_s)
        if isinstance(outcome, Refusal) and not math.isinf(outcome.wait_s):
            early = admit(account, quota, estimate, now_s + outcome.wait_s * 0.9)
            assert isinstance(early, Refusal), "it was told to wait longer than it had to"
            now_s += outcome.wait_s
            outcome = admit(account, quota, estimate, now_s)
            if isinstance(outcome, Refusal):  # the requests were there again, the tokens were not yet
                assert outcome.limit is Limit.TOKENS
                now_s += outcome.wait_s
                outcome = admit(account, quota, estimate, now_s)
        if isinstance(outcome, Account):
            account = leave(settle(outcome, quota, estimate, int(estimate * share), now_s))
        else:
            assert estimate > (quota.tokens_per_minute or 0)


@given(st.integers(1, 600), st.floats(0, 600), st.floats(0, 300))
def test_a_bucket_fills_evenly_and_no_further(per_minute: int, start_s: float, elapsed_s: float) -> None:
    quota = Quota(requests_per_minute=per_minute)
    empty = Account(0.0, math.inf, start_s)
    account = refill(empty, quota, start_s + elapsed_s)
    assert account.requests == pytest.approx(min(per_minute, per_minute * elapsed_s / 60), abs=1e-6)
    assert refill(account, quota, start_s).requests == account.requests, "time that goes back takes nothing"


def test_without_bounds_nothing_is_refused() -> None:
    account = open_account(Quota(), _START_S)
    for _ in range(1_000):
        account = _admitted(admit(account, Quota(), 10**9, _START_S))
    assert account.num_running == 1_000
    account = settle(account, Quota(), 10**9, 10**9, _START_S)
    assert (account.requests, account.tokens) == (math.inf, math.inf)


def test_requests_a_minute() -> None:
    quota = Quota(requests_per_minute=2)
    account = open_account(quota, _START_S)
    account = _admitted(admit(account, quota, 0, _START_S))
    account = _admitted(admit(account, quota, 0, _START_S))
    assert _refused(admit(account, quota, 0, _START_S)) == Refusal(Limit.REQUESTS, 30.0)
    assert _refused(admit(account, quota, 0, _START_S + 20)).wait_s == pytest.approx(10.0)
    _admitted(admit(account, quota, 0, _START_S + 30))


def test_concurrent_requests() -> None:
    quota = Quota(concurrent_requests=1)
    account = _admitted(admit(open_account(quota, _START_S), quota, 0, _START_S))
    assert _refused(admit(account, quota, 0, _START_S)) == Refusal(Limit.CONCURRENCY, UNKNOWN_WAIT_S)
    _admitted(admit(leave(account), quota, 0, _START_S))


def test_what_is_promised_is_not_promised_twice() -> None:
    quota = Quota(tokens_per_minute=100)
    account = _admitted(admit(open_account(quota, _START_S), quota, 60, _START_S))
    assert _refused(admit(account, quota, 60, _START_S)) == Refusal(Limit.TOKENS, UNKNOWN_WAIT_S)
    account = settle(account, quota, 60, 10, _START_S)
    assert (account.tokens, account.held_tokens) == (90.0, 0)
    _admitted(admit(account, quota, 60, _START_S))


def test_more_used_than_estimated_is_waited_for() -> None:
    quota = Quota(tokens_per_minute=60)
    account = _admitted(admit(open_account(quota, _START_S), quota, 10, _START_S))
    account = settle(account, quota, 10, 90, _START_S)
    assert account.tokens == -30
    assert _refused(hold(account, quota, 30, _START_S)) == Refusal(Limit.TOKENS, 60.0)


def test_a_request_larger_than_a_minutes_quota_never_passes() -> None:
    quota = Quota(tokens_per_minute=100)
    assert _refused(admit(open_account(quota, _START_S), quota, 101, _START_S)) == Refusal(Limit.TOKENS, math.inf)


def test_a_lowered_quota_counts_at_once_and_a_raised_one_fills() -> None:
    account = open_account(Quota(requests_per_minute=100), _START_S)
    assert refill(account, Quota(requests_per_minute=10), _START_S).requests == 10
    assert refill(account, Quota(requests_per_minute=600), _START_S + 6).requests == 160
    assert refill(account, Quota(), _START_S).requests == math.inf


@pytest.mark.parametrize("name", ["requests_per_minute", "tokens_per_minute", "concurrent_requests"])
@pytest.mark.parametrize("bound", [0, -1, 1_000_000_001])
def test_bounds_that_are_none(name: str, bound: int) -> None:
    with pytest.raises(InvalidRequestError, match=rf"^{name} is {bound}; it must be from 1 to 1000000000") as refusal:
        Quota(**{name: bound}).check()
    assert refusal.value.param == name
    Quota().check()


def test_seconds_until_full() -> None:
    assert reset_s(60, 60) == 0
    assert reset_s(0, 60) == 60
    assert reset_s(-30, 60) == 90


def test_estimate() -> None:
    assert estimate_tokens(0, 7) == 7
    assert estimate_tokens(len("The capital of France?"), 10) == 16
