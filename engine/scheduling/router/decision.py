"""What the router decided, as data: for each candidate why it is in or out, and what its cost is made of."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Cause(StrEnum):
    """Why a candidate is out."""

    MISSING = "not here"
    TRIED = "tried in vain"
    WEIGHT = "weight 0"
    FEATURE = "cannot do it"
    CONTEXT = "context too short"
    NOT_READY = "not ready"
    BREAKER = "breaker open"
    FULL = "queue full"


@dataclass(frozen=True, slots=True)
class CostPart:
    """One part of a candidate's cost, already weighted; `note` says what it was computed from."""

    name: str
    value: float
    note: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """A candidate's case.

    Attributes:
        cause: why it is out; None for one that can serve this request now.
        reason: the same in words, with its numbers; of one that can serve, what became of it.
        parts: of its cost; empty for one that is out. The lowest cost wins where the least busy one answers.
    """

    instance: str
    cause: Cause | None
    reason: str
    parts: tuple[CostPart, ...] = ()

    @property
    def is_able(self) -> bool:
        return self.cause is None

    @property
    def cost(self) -> float:
        return sum(part.value for part in self.parts)


@dataclass(frozen=True, slots=True)
class Decision:
    """Who answers, and why. `instance` is None where nobody can; `reason` then says that."""

    model: str
    instance: str | None
    reason: str
    verdicts: tuple[Verdict, ...]
