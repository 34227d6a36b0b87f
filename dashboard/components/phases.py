"""Where the time of one request went."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from engine.latency import RequestRecord


@dataclass(frozen=True, slots=True)
class Phase:
    """A stretch of a request's life; `start_s` counts from its receipt."""

    name: str
    start_s: float
    duration_s: float


def split_phases(record: RequestRecord) -> tuple[Phase, ...]:
    """Queue, prefill, decode and finish, without gap or overlap from receipt to end.

    A request that never got further spends the rest of its life in the phase that it was in.
    """
    moments = [("queue", 0.0)]
    for name, moment_s in (
        ("prefill", record.scheduled_s),
        ("decode", record.first_token_s),
        ("finish", record.last_token_s),
    ):
        if moment_s is None:
            break
        moments.append((name, moment_s))
    moments.append(("end", record.finished_s))
    return tuple(Phase(name, start_s, end_s - start_s) for (name, start_s), (_, end_s) in pairwise(moments))
