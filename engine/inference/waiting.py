"""The requests that wait for their turn, and what each key has been served. The decisions are in `scheduling`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING

from engine.inference.stats import StartRate
from engine.scheduling.admission import Limits, Queue, Refusal, estimate_wait_s, judge_arrival
from engine.scheduling.fairness import Key, Turn, forget, lift, take_turns, weigh

if TYPE_CHECKING:
    from engine.inference.sequence import Sequence


class RequestQueue:
    """Iterates in order of arrival. Has no lock of its own: whoever owns it calls under theirs."""

    def __init__(self, limits: Limits) -> None:
        self.num_tokens = 0
        self._limits = limits
        self._sequences: dict[str, Sequence] = {}
        self._num_by_key: Counter[Key] = Counter()
        self._served: dict[Key, float] = {}
        self._starts = StartRate()

    def __len__(self) -> int:
        return len(self._sequences)

    def __iter__(self) -> Iterator[Sequence]:
        return iter(self._sequences.values())

    def get(self, request_id: str) -> Sequence | None:
        """The request of that id, if it waits."""
        return self._sequences.get(request_id)

    def judge(self, num_prompt_tokens: int, num_running: int, now_s: float) -> Refusal | None:
        """None when one more request of that length may wait."""
        queue = Queue(num_running, len(self), self.num_tokens, self.start_gap_s(now_s))
        return judge_arrival(num_prompt_tokens, queue, self._limits)

    def add(self, sequence: Sequence, running: Collection[Sequence]) -> None:
        """Put a request at the end, whatever the limits are."""
        key = sequence.request.key_id
        if key not in self._num_by_key:
            self._lift(key, running)
        self._num_by_key[key] += 1
        self.num_tokens += sequence.num_prompt_tokens
        self._sequences[sequence.request_id] = sequence

    def take_turns(self, now_s: float, running: Collection[Sequence]) -> Iterator[Sequence]:
        """All that wait, in the order in which they start. Nothing is taken out by it."""
        turns = [
            Turn(
                sequence.request_id,
                sequence.request.key_id,
                sequence.request.priority,
                now_s - sequence.timing.received_s,
                sequence.num_prompt_tokens,
            )
            for sequence in self
        ]
        return (self._sequences[request_id] for request_id in take_turns(turns, self._count_served(running)))

    def start(self, request_id: str, now_s: float) -> Sequence:
        """Take a request out because it starts."""
        self._starts.add(now_s)
        sequence = self._sequences[request_id]
        self.remove(sequence)
        return sequence

    def remove(self, sequence: Sequence) -> None:
        """Take a request out, if it is here."""
        if self._sequences.pop(sequence.request_id, None) is not None:
            self.num_tokens -= sequence.num_prompt_tokens
            self._uncount(sequence.request.key_id)

    def _uncount(self, key: Key) -> None:
        self._num_by_key[key] -= 1
        if not self._num_by_key[key]:
            del self._num_by_key[key]

    def settle(self, sequence: Sequence, running: Collection[Sequence]) -> None:
        """Charge a request that ran and has ended; `running` are the others."""
        key = sequence.request.key_id
        self._served[key] = self._served.get(key, 0.0) + _cost(sequence)
        active = {*self._num_by_key, *(other.request.key_id for other in running)}
        kept = forget(self._count_served(running), active)
        self._served = {key: count for key, count in self._served.items() if key in kept}

    def start_gap_s(self, now_s: float) -> float | None:
        """Seconds between two starts at present; see `StartRate.gap_s`."""
        oldest = next(iter(self), None)
        return self._starts.gap_s(now_s, None if oldest is None else oldest.timing.received_s)

    def estimate_wait_s(self, now_s: float) -> float:
        """Seconds in which all that wait will have started, at the present rate."""
        return estimate_wait_s(len(self), self.start_gap_s(now_s))

    def _count_served(self, running: Collection[Sequence]) -> dict[Key, float]:
        """What each key was served, with what its running requests have had so far."""
        served = dict(self._served)
        for sequence in running:
            key = sequence.request.key_id
            served[key] = served.get(key, 0.0) + _cost(sequence)
        return served

    def _lift(self, key: Key, running: Collection[Sequence]) -> None:
        served = self._count_served(running)
        missing = lift(served, key, [other for other in self._num_by_key if other != key]) - served.get(key, 0.0)
        if missing > 0:
            self._served[key] = self._served.get(key, 0.0) + missing


def _cost(sequence: Sequence) -> float:
    return weigh(sequence.num_prompt_tokens, sequence.num_output_tokens)
