"""What the response cache keeps, within a bound of bytes and a time to live. API keys share the bound: where it is
passed, the one goes that holds most."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Collection, Hashable, Iterator
from dataclasses import dataclass

from engine.clock import Clock
from engine.inference.request import Delta, Event, Finished, Request

# What an entry, an event and a token take beside their text; measured on CPython 3.11.
_ENTRY_BYTES = 1_024
_EVENT_BYTES = 200
_TOKEN_BYTES = 300
_ALTERNATIVE_BYTES = 150


@dataclass(frozen=True, slots=True)
class KeptAnswer:
    """A whole answer to one request: its events, `Finished` last. `engine_s` is what the engine worked on it."""

    events: tuple[Event, ...]
    finished: Finished
    instance: str
    engine_s: float

    @property
    def size_bytes(self) -> int:
        """About what it takes in memory."""
        return _ENTRY_BYTES + sum(_size(event) for event in self.events)


@dataclass(frozen=True, slots=True)
class EncodedChoice:
    """One answer of those in an HTTP answer: the request and the end of it that a record of it is made from, and what
    the engine worked on it."""

    request: Request
    finished: Finished
    engine_s: float


@dataclass(frozen=True, slots=True)
class Written:
    """The bytes of an HTTP answer, with marks in the places of its id and its time (api/response_cache.py).

    Attributes:
        id_prefix: what the ids of such answers begin with.
    """

    body: bytes
    media_type: str
    id_prefix: str


@dataclass(frozen=True, slots=True)
class EncodedAnswer:
    """A whole HTTP answer made of kept ones. `model` is what was asked for, `identity` what stood behind that name."""

    choices: tuple[EncodedChoice, ...]
    model: str
    identity: Hashable
    written: Written

    @property
    def size_bytes(self) -> int:
        """About what it takes in memory."""
        asked = sum(_asked_bytes(choice.request) for choice in self.choices)
        return _ENTRY_BYTES * len(self.choices) + len(self.written.body) + asked


Kept = KeptAnswer | EncodedAnswer


@dataclass(frozen=True, slots=True)
class _Item:
    value: Kept
    owner: str | None
    size_bytes: int
    expires_s: float


class KeptStore:
    """Of the owner who holds most, the least recently used goes first; so nobody loses to others what he keeps within
    his share. One thread at a time may call."""

    def __init__(self, max_bytes: int, ttl_s: float, clock: Clock) -> None:
        self.max_bytes = max_bytes
        self.size_bytes = 0
        self._ttl_s = ttl_s
        self._clock = clock
        self._items: dict[bytes, _Item] = {}
        self._used: dict[str | None, OrderedDict[bytes, None]] = {}  # keys by owner, the least recently used first
        self._bytes: Counter[str | None] = Counter()

    def get(self, key: bytes) -> Kept | None:
        """What is kept under `key`; None where there is nothing, or its time is over."""
        item = self._items.get(key)
        if item is None:
            return None
        if self._clock.monotonic() >= item.expires_s:
            self._drop(key)
            return None
        self._used[item.owner].move_to_end(key)
        return item.value

    def put(self, key: bytes, value: Kept, made_of: Collection[bytes] = (), owner: str | None = None) -> None:
        """Keep it for the API key `owner`, no longer than what it is made of: the entries under those keys. What is
        larger than the whole bound is not kept."""
        self._drop(key)
        size_bytes = value.size_bytes
        if size_bytes > self.max_bytes:
            return
        parts = [self._items[part].expires_s for part in made_of if part in self._items]
        if len(parts) < len(made_of):
            return
        expires_s = min(parts, default=self._clock.monotonic() + self._ttl_s)
        self._items[key] = _Item(value, owner, size_bytes, expires_s)
        self._used.setdefault(owner, OrderedDict())[key] = None
        self._bytes[owner] += size_bytes
        self.size_bytes += size_bytes
        while self.size_bytes > self.max_bytes:
            most = max(self._bytes, key=self._bytes.__getitem__)
            self._drop(next(iter(self._used[most])))

    def clear(self) -> None:
        """Keep nothing."""
        self._items.clear()
        self._used.clear()
        self._bytes.clear()
        self.size_bytes = 0

    def answers(self) -> Iterator[KeptAnswer]:
        """The answers that are kept, those whose time is over among them until somebody asks for them."""
        return (item.value for item in self._items.values() if isinstance(item.value, KeptAnswer))

    def _drop(self, key: bytes) -> None:
        item = self._items.pop(key, None)
        if item is None:
            return
        self.size_bytes -= item.size_bytes
        self._bytes[item.owner] -= item.size_bytes
        del self._used[item.owner][key]
        if not self._used[item.owner]:
            del self._used[item.owner], self._bytes[item.owner]


def _size(event: Event) -> int:
    if not isinstance(event, Delta):
        return _EVENT_BYTES
    pieces = sum(len(repr(piece)) for piece in event.calls)
    tokens = sum(_TOKEN_BYTES + _ALTERNATIVE_BYTES * len(token.top) for token in event.tokens)
    return _EVENT_BYTES + 4 * len(event.text) + pieces + tokens


def _asked_bytes(request: Request) -> int:
    """Text counts at four bytes a character, token ids at eight."""
    texts = sum(len(text) for message in request.messages for text in message.texts())
    return 4 * texts + 8 * len(request.prompt or "")
