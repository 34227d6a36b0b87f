"""Quotas at work: callers are held to them before anything is queued, and charged what was really used.

What a request took comes with its record, so it is charged also where the client left long before.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple, Protocol, Self, TypeVar

from engine.clock import Clock
from engine.errors import ConsoleError, InvalidRequestError, RateLimitError
from engine.inference.embedding import EmbeddingJob, EmbeddingRequest
from engine.inference.outputs import OutputStream
from engine.inference.request import Request
from engine.keyring import Caller
from engine.latency.record import RequestRecord
from engine.scheduling.quota import (
    BYTES_PER_TOKEN,
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
from engine.state.api_keys import Usage

# What an image takes of a quota before it is read: a token for 28 x 28 pixels, as GLM and Qwen have it.
_PIXELS_PER_TOKEN = 28 * 28

Begun = TypeVar("Begun")


class Serving(Protocol):
    """What begins requests: the engine, the gateway before it, or a meter before that."""

    def stream(self, request: Request) -> OutputStream: ...

    def embed(self, request: EmbeddingRequest) -> EmbeddingJob: ...


class Recording(Serving, Protocol):
    """What also records a request that is refused before it comes there: the engine, or the gateway before it."""

    def note_refusal(self, request: Request | EmbeddingRequest, error: ConsoleError) -> None: ...


class _Hold(NamedTuple):
    key_id: str
    num_tokens: int


class _Standing(NamedTuple):
    quota: Quota
    account: Account


class Quotas:
    """What each key has left. Every method may be called from any thread and takes microseconds.

    `on_usage` is told of what was done with a key. A request that names no bound of its answer is taken to write
    `default_max_tokens`.
    """

    def __init__(self, on_usage: Callable[[str, Usage], None], default_max_tokens: int, clock: Clock) -> None:
        self.default_max_tokens = default_max_tokens
        self.on_usage = on_usage
        self._clock = clock
        self._lock = threading.Lock()
        self._standings: dict[str, _Standing] = {}  # by key, of those that have begun something
        self._holds: dict[str, list[_Hold]] = {}  # by request id; clients may send the same one twice

    def meter(self, caller: Caller, engine: Recording, trace_parent: str | None = None) -> Meter:
        """`engine` for one HTTP request of `caller`, in the span `trace_parent`; close it when the answer was sent."""
        return Meter(self, caller, engine, trace_parent)

    def settle(self, record: RequestRecord) -> None:
        """Charge what an ended request took. One that nobody sent with a key that has begun something is none of ours.

        A request that was sent on to another instance has a record of each try: the first ends what was held, and the
        others are charged all the same.
        """
        held = self._take(record.request_id, record.key_id)
        if held is None and record.key_id in self._standings:
            held = _Hold(record.key_id, 0)
        if held is not None:
            used = Usage(num_prompt_tokens=record.num_prompt_tokens, num_output_tokens=record.num_output_tokens)
            self._settle(held, record.num_prompt_tokens + record.num_output_tokens)
            self.on_usage(held.key_id, used)

    def begin(self, caller: Caller, key_id: str, request_id: str, num_tokens: int, *, is_first: bool) -> None:
        """Hold tokens for a request until `settle` or `forget`; `is_first` counts it as one more HTTP request.

        Raises:
            RateLimitError: a quota is used up.
            InvalidRequestError: the request is larger than the quota of a whole minute.
        """
        now_s = self._clock.monotonic()
        with self._lock:
            account = self._account(key_id, caller.quota, now_s)
            after = (admit if is_first else hold)(account, caller.quota, num_tokens, now_s)
            if not isinstance(after, Refusal):
                self._standings[key_id] = _Standing(caller.quota, after)
                self._holds.setdefault(request_id, []).append(_Hold(key_id, num_tokens))
                return
        raise _refuse(caller, after, num_tokens, self.headers(caller))

    def forget(self, request_id: str, key_id: str) -> None:
        """The request did not begin: nothing is charged."""
        held = self._take(request_id, key_id)
        if held is not None:
            self._settle(held, 0)

    def leave(self, key_id: str) -> None:
        """An HTTP request has been answered."""
        with self._lock:
            quota, account = self._standings[key_id]
            self._standings[key_id] = _Standing(quota, leave(account))

    def headers(self, caller: Caller) -> dict[str, str]:
        """OpenAI's `x-ratelimit-` headers, as far as the key has bounds."""
        if caller.key_id is None or caller.quota == Quota():
            return {}
        quota, now_s = caller.quota, self._clock.monotonic()
        with self._lock:
            account = refill(self._account(caller.key_id, quota, now_s), quota, now_s)
        return {
            **_bucket_headers("requests", account.requests, quota.requests_per_minute),
            **_bucket_headers("tokens", account.tokens - account.held_tokens, quota.tokens_per_minute),
        }

    def _account(self, key_id: str, quota: Quota, now_s: float) -> Account:
        standing = self._standings.get(key_id)
        return open_account(quota, now_s) if standing is None else standing.account

    def _take(self, request_id: str, key_id: str | None) -> _Hold | None:
        """Only the key's own: another one's request may have the same id."""
        with self._lock:
            held = self._holds.get(request_id, [])
            own = next((hold for hold in held if hold.key_id == key_id), None)
            if own is not None:
                held.remove(own)
                if not held:
                    del self._holds[request_id]
            return own

    def _settle(self, held: _Hold, num_used: int) -> None:
        with self._lock:
            quota, account = self._standings[held.key_id]
            account = settle(account, quota, held.num_tokens, num_used, self._clock.monotonic())
            self._standings[held.key_id] = _Standing(quota, account)


class Meter:
    """The engine for one HTTP request: whatever is begun here is held to the caller's quotas."""

    def __init__(self, quotas: Quotas, caller: Caller, engine: Recording, trace_parent: str | None = None) -> None:
        self.caller = caller
        self._trace_parent = trace_parent
        self._quotas = quotas
        self._engine = engine
        self._has_begun = False

    def stream(self, request: Request) -> OutputStream:
        """As `Engine.stream`, in the caller's name.

        Raises:
            RateLimitError, InvalidRequestError: see `Quotas.begin`.
        """
        asked = replace(request, key_id=self.caller.key_id, trace_parent=self._trace_parent)
        max_tokens = request.sampling.max_tokens or self._quotas.default_max_tokens
        num_tokens = estimate_tokens(_prompt_bytes(request), max_tokens)
        return self._begin(asked, num_tokens, lambda: self._engine.stream(asked))

    def embed(self, request: EmbeddingRequest) -> EmbeddingJob:
        """As `Engine.embed`, in the caller's name; raises as `stream` does."""
        asked = replace(request, key_id=self.caller.key_id, trace_parent=self._trace_parent)
        num_tokens = estimate_tokens(sum(map(_size, request.inputs)), 0)
        return self._begin(asked, num_tokens, lambda: self._engine.embed(asked))

    def replay(self, request: Request, request_id: str, begin: Callable[[Request], Begun]) -> Begun:
        """As `stream`, for a kept answer to the same request that came before: it counts as one, and takes no tokens.

        Raises:
            RateLimitError: a quota is used up.
        """
        key_id, trace_parent = self.caller.key_id, self._trace_parent
        asked = replace(request, request_id=request_id, key_id=key_id, trace_parent=trace_parent)
        return self._begin(asked, 0, lambda: begin(asked))

    def headers(self) -> dict[str, str]:
        """For the answer: what the caller has left."""
        return self._quotas.headers(self.caller)

    def close(self) -> None:
        """The answer was sent, or nobody waits for it any more."""
        self.hand_over()()

    def hand_over(self) -> Callable[[], None]:
        """Have what runs go on beyond this HTTP request, as one of the caller's until the function returned is called,
        once."""
        key_id = self.caller.key_id
        if key_id is None or not self._has_begun:
            return lambda: None
        self._has_begun = False
        return lambda: self._quotas.leave(key_id)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _begin(self, request: Request | EmbeddingRequest, num_tokens: int, begin: Callable[[], Begun]) -> Begun:
        key_id = self.caller.key_id
        if key_id is None:
            return begin()
        try:
            self._hold(key_id, request, num_tokens)
            return self._or_forget(request.request_id, key_id, begin)
        except ConsoleError as error:
            if error.retry_after_s is not None:
                self._quotas.on_usage(key_id, Usage(num_rejected=1))
            raise

    def _hold(self, key_id: str, request: Request | EmbeddingRequest, num_tokens: int) -> None:
        is_first = not self._has_begun
        try:
            self._quotas.begin(self.caller, key_id, request.request_id, num_tokens, is_first=is_first)
        except ConsoleError as error:
            self._engine.note_refusal(request, error)
            raise
        self._has_begun = True

    def _or_forget(self, request_id: str, key_id: str, begin: Callable[[], Begun]) -> Begun:
        try:
            return begin()
        except BaseException:
            self._quotas.forget(request_id, key_id)
            raise


def _prompt_bytes(request: Request) -> int:
    texts = _size(request.prompt or "") + sum(_size(message.text) for message in request.messages)
    return texts + sum(image.num_pixels // _PIXELS_PER_TOKEN * BYTES_PER_TOKEN for image in request.images)


def _size(text: str | Sequence[int]) -> int:
    """Bytes of a text, or what that many tokens of text would have."""
    return len(text.encode(errors="replace")) if isinstance(text, str) else len(text) * BYTES_PER_TOKEN


def _refuse(
    caller: Caller, refusal: Refusal, num_tokens: int, headers: Mapping[str, str]
) -> RateLimitError | InvalidRequestError:
    quota, of_key = caller.quota, f"of the key {caller.name!r} is"
    if math.isinf(refusal.wait_s):
        return InvalidRequestError(
            f"this request may take {num_tokens:,} tokens, and tokens_per_minute {of_key} {quota.tokens_per_minute:,}: "
            "lower max_tokens or shorten the prompt",
            "max_tokens",
        )
    bounds = {
        Limit.CONCURRENCY: f"concurrent_requests {of_key} {quota.concurrent_requests}, and as many are running",
        Limit.REQUESTS: f"requests_per_minute {of_key} {quota.requests_per_minute}, and used up",
        Limit.TOKENS: f"tokens_per_minute {of_key} {quota.tokens_per_minute}, and used or promised to running requests",
    }
    return RateLimitError(f"{bounds[refusal.limit]}: try again in {refusal.wait_s:.3g} s", refusal.wait_s, headers)


def _bucket_headers(name: str, level: float, per_minute: int | None) -> dict[str, str]:
    if per_minute is None:
        return {}
    return {
        f"x-ratelimit-limit-{name}": str(per_minute),
        f"x-ratelimit-remaining-{name}": str(max(0, math.floor(level))),
        f"x-ratelimit-reset-{name}": format_reset(reset_s(level, per_minute)),
    }


def format_reset(seconds: float) -> str:
    """A duration as OpenAI writes it: `834ms`, `1.5s`, `1m3s`."""
    if seconds < 1:
        return f"{math.ceil(seconds * 1000)}ms"
    minutes, rest = divmod(math.ceil(round(seconds * 10, 3)) / 10, 60)
    return f"{minutes:.0f}m{rest:.0f}s" if minutes else f"{rest:g}s"
