"""What the gateway remembers of past requests: the last decisions, who answered which conversation, who saw which
prompts. All of it is bounded."""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from engine.scheduling.router import Decision, History
from engine.scheduling.router.affinity import SeenPrefixes

_KEPT_DECISIONS = 200
_KEPT_CONVERSATIONS = 10_000


@dataclass(frozen=True, slots=True)
class Decided:
    """A decision that was taken. `at_s` is seconds since the epoch, `took_s` what deciding took."""

    at_s: float
    request_id: str
    decision: Decision
    took_s: float


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a request comes from: the route it takes, its conversation, the blocks of its prompt."""

    route: str
    conversation: str
    prefix: tuple[bytes, ...]


class Memory:
    """Any thread may call."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._decided: deque[Decided] = deque(maxlen=_KEPT_DECISIONS)
        self._answered_by: OrderedDict[tuple[str, str], str] = OrderedDict()
        self._seen = SeenPrefixes()

    def history(self, origin: Origin, instances: Iterable[str], failed: Mapping[str, str]) -> History:
        """What the router should know."""
        with self._lock:
            stays_with = self._answered_by.get((origin.route, origin.conversation))
            shares = {name: self._seen.share(name, origin.prefix) for name in instances} if origin.prefix else {}
        return History(stays_with, shares, failed)

    def note_decision(self, decided: Decided) -> None:
        """Keep it, and drop the oldest."""
        with self._lock:
            self._decided.append(decided)

    def note_sent(self, origin: Origin, instance: str) -> None:
        """A request went to that instance."""
        key = origin.route, origin.conversation
        with self._lock:
            self._seen.add(instance, origin.prefix)
            self._answered_by[key] = instance
            self._answered_by.move_to_end(key)
            if len(self._answered_by) > _KEPT_CONVERSATIONS:
                self._answered_by.popitem(last=False)

    def decisions(self, limit: int) -> tuple[Decided, ...]:
        """The last ones, newest first."""
        with self._lock:
            return tuple(reversed(self._decided))[:limit]
