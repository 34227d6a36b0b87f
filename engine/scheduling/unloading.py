"""Which idle models to unload so that the next one has room: a pure function of plain numbers.

The least recently used go first, and no more of them than are needed. Where all of them together would not be
enough, none is unloaded: nobody's model is taken away in vain.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from engine.models.spec import ModelSpec


@dataclass(frozen=True, slots=True)
class Room:
    """What loading a model takes, and what is free, in bytes of the memory of `device` (`cpu`, `cuda:0`)."""

    device: str
    needed_bytes: int
    free_bytes: int


class RoomPlanner(Protocol):
    """Plans the memory of a model before it is loaded."""

    def __call__(self, spec: ModelSpec) -> Room | None:
        """None where it cannot be told: the model is then loaded without more ado."""


@dataclass(frozen=True, slots=True)
class Resident:
    """A loaded model as seen here.

    Attributes:
        held_bytes: what unloading it gives back.
        num_requests: waiting and running now.
        last_used_s: when a request last came or ended, or when it became ready; on the clock of `now_s`.
        why_not: what else speaks against unloading it ("it is being swapped"), None when nothing does.
    """

    name: str
    held_bytes: int
    num_requests: int
    last_used_s: float
    is_pinned: bool = False
    why_not: str | None = None


@dataclass(frozen=True, slots=True)
class Unloading:
    """The names to unload, in this order, the bytes that gives back, and a reason for each resident, those that stay
    too. `is_enough` is False, and `names` empty, where it cannot be done."""

    names: tuple[str, ...]
    freed_bytes: int
    is_enough: bool
    reasons: tuple[str, ...]


def choose_to_unload(instances: Sequence[Resident], needed_bytes: int, free_bytes: int, now_s: float) -> Unloading:
    """Choose among `instances`, which are all on the device that is short of memory."""
    missing_bytes = max(0, needed_bytes - free_bytes)
    kept = {resident.name: why for resident in instances if (why := _why_kept(resident)) is not None}
    idle = sorted((item for item in instances if item.name not in kept), key=lambda item: (item.last_used_s, item.name))
    stays = [f"{name} stays: {why}" for name, why in kept.items()]
    if sum(item.held_bytes for item in idle) < missing_bytes:
        too_small = [f"{item.name} stays: unloading it would not be enough" for item in idle]
        return Unloading((), 0, False, (*too_small, *stays))
    chosen = _least_recent(idle, missing_bytes)
    goes = [f"{item.name} is unloaded: idle for {max(0.0, now_s - item.last_used_s):.0f} s" for item in chosen]
    spared = [f"{item.name} stays: there is room without it" for item in idle if item not in chosen]
    freed_bytes = sum(item.held_bytes for item in chosen)
    return Unloading(tuple(item.name for item in chosen), freed_bytes, True, (*goes, *spared, *stays))


def _least_recent(idle: Sequence[Resident], missing_bytes: int) -> list[Resident]:
    """From the front of `idle` until it is enough, without those that the later, larger ones made superfluous."""
    chosen: list[Resident] = []
    freed_bytes = 0
    for resident in idle:
        if freed_bytes >= missing_bytes:
            break
        chosen.append(resident)
        freed_bytes += resident.held_bytes
    for resident in reversed(list(chosen)):
        if freed_bytes - resident.held_bytes >= missing_bytes:
            chosen.remove(resident)
            freed_bytes -= resident.held_bytes
    return chosen


def _why_kept(resident: Resident) -> str | None:
    if resident.is_pinned:
        return "it is pinned"
    if resident.num_requests:
        return f"it is in use ({resident.num_requests} request{'' if resident.num_requests == 1 else 's'})"
    return resident.why_not
