"""What an API key may use, and what it has left: pure functions of plain numbers.

Requests and tokens a minute are token buckets: each holds at most one minute's quota and fills evenly. A request
takes one from the requests at once. Of the tokens it holds its estimate until it has ended, and then what it really
used is taken instead. So over any w seconds a key is granted at most quota * (1 + w / 60), as long as no request
uses more than its estimate; where one does, the bucket goes below zero and the key waits for that too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from enum import StrEnum

from engine.errors import InvalidRequestError

MINUTE_S = 60.0
# One of the key's own requests has to end first, and when it will nobody knows.
UNKNOWN_WAIT_S = 1.0
MAX_QUOTA = 1_000_000_000
BYTES_PER_TOKEN = 4
# Of a bucket: what rounding may cost, so that who waits as long as told is not refused again.
_TOLERANCE = 1e-9


@dataclass(frozen=True, slots=True)
class Quota:
    """Bounds of one key; None for no bound. Tokens are those of prompts and answers together."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrent_requests: int | None = None

    def check(self) -> None:
        """Raise InvalidRequestError naming the first bound that is none."""
        for item in fields(self):
            bound = getattr(self, item.name)
            if bound is not None and not 1 <= bound <= MAX_QUOTA:
                raise InvalidRequestError(
                    f"{item.name} is {bound}; it must be from 1 to {MAX_QUOTA}, or left out for no bound", item.name
                )


class Limit(StrEnum):
    """Which bound a request met."""

    REQUESTS = "requests"
    TOKENS = "tokens"
    CONCURRENCY = "concurrency"


@dataclass(frozen=True, slots=True)
class Account:
    """What a key had left at `at_s`. Without a bound the level is infinite.

    Attributes:
        tokens: of which `held_tokens` are promised to requests that have not ended.
        num_running: requests that have not ended.
    """

    requests: float
    tokens: float
    at_s: float
    held_tokens: int = 0
    num_running: int = 0


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request may not start. `wait_s` is when it would pass: infinite when it never will."""

    limit: Limit
    wait_s: float


def open_account(quota: Quota, now_s: float) -> Account:
    """All buckets full."""
    return Account(_capacity(quota.requests_per_minute), _capacity(quota.tokens_per_minute), now_s)


def refill(account: Account, quota: Quota, now_s: float) -> Account:
    """The account as it is now. A quota that was changed counts from here on."""
    elapsed_s = max(0.0, now_s - account.at_s)
    return Account(
        _level(account.requests, quota.requests_per_minute, elapsed_s),
        _level(account.tokens, quota.tokens_per_minute, elapsed_s),
        max(account.at_s, now_s),
        account.held_tokens,
        account.num_running,
    )


def admit(account: Account, quota: Quota, num_tokens: int, now_s: float) -> Account | Refusal:
    """Start a request that may use `num_tokens`, or say what it would have to wait for."""
    account = refill(account, quota, now_s)
    if quota.concurrent_requests is not None and account.num_running >= quota.concurrent_requests:
        return Refusal(Limit.CONCURRENCY, UNKNOWN_WAIT_S)
    if account.requests < 1 - _TOLERANCE * _capacity(quota.requests_per_minute):
        return Refusal(Limit.REQUESTS, _fill_s(1 - account.requests, quota.requests_per_minute))
    return _promise(account, quota, num_tokens, num_requests=1)


def hold(account: Account, quota: Quota, num_tokens: int, now_s: float) -> Account | Refusal:
    """Promise tokens to a request that has started."""
    return _promise(refill(account, quota, now_s), quota, num_tokens, num_requests=0)


def _promise(account: Account, quota: Quota, num_tokens: int, num_requests: int) -> Account | Refusal:
    capacity = _capacity(quota.tokens_per_minute)
    short = num_tokens - (account.tokens - account.held_tokens)
    if short <= _TOLERANCE * capacity:
        return Account(
            account.requests - num_requests,
            account.tokens,
            account.at_s,
            account.held_tokens + num_tokens,
            account.num_running + num_requests,
        )
    if num_tokens > capacity:
        return Refusal(Limit.TOKENS, math.inf)
    if num_tokens + account.held_tokens > capacity:
        return Refusal(Limit.TOKENS, UNKNOWN_WAIT_S)
    return Refusal(Limit.TOKENS, _fill_s(short, quota.tokens_per_minute))


def settle(account: Account, quota: Quota, num_held: int, num_used: int, now_s: float) -> Account:
    """Take what was used in place of what was held for it."""
    account = refill(account, quota, now_s)
    return replace(account, held_tokens=account.held_tokens - num_held, tokens=account.tokens - num_used)


def leave(account: Account) -> Account:
    """A request has ended."""
    return replace(account, num_running=account.num_running - 1)


def reset_s(level: float, per_minute: int) -> float:
    """Seconds until a bucket at `level` is full."""
    return _fill_s(max(0.0, per_minute - level), per_minute)


def estimate_tokens(num_prompt_bytes: int, max_tokens: int) -> int:
    """What a request may use at most: a token is about four bytes of UTF-8, in English and in Chinese alike. What is
    beyond every quota is not told apart, as the number that a client sends may be too large for a float."""
    return min(math.ceil(num_prompt_bytes / BYTES_PER_TOKEN) + max_tokens, MAX_QUOTA + 1)


def _capacity(per_minute: int | None) -> float:
    return math.inf if per_minute is None else float(per_minute)


def _level(level: float, per_minute: int | None, elapsed_s: float) -> float:
    return math.inf if per_minute is None else min(float(per_minute), level + elapsed_s * per_minute / MINUTE_S)


def _fill_s(amount: float, per_minute: int | None) -> float:
    return 0.0 if per_minute is None else amount * MINUTE_S / per_minute
