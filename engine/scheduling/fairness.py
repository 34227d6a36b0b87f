"""Whose turn it is: pure functions of plain numbers.

Priorities first. A request that has waited `AGEING_S` counts as one level higher, up to the highest priority that waits
beside it: so it is overtaken for a bounded time, and where all ask for the same priority waiting changes nothing.

Among equals, keys take fair turns: next is the oldest request of the key that has been served least. Service is counted
in tokens, prompt and output weighed as in Sheng et al., "Fairness in Serving Large Language Models" (OSDI 2024), and so
is its rule for who comes back: a key that did not wait gets no credit for that time, its count is lifted to the least
one of those that do.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

AGEING_S = 10.0
_PROMPT_WEIGHT = 1.0
_OUTPUT_WEIGHT = 2.0

Key = str | None


@dataclass(frozen=True, slots=True)
class Turn:
    """A waiting request as far as its turn depends on it. `key_id` is None for requests without a key, which share
    their turns as if they had one."""

    request_id: str
    key_id: Key
    priority: int
    waited_s: float
    num_prompt_tokens: int


def weigh(num_prompt_tokens: int, num_output_tokens: int) -> float:
    """What serving so many tokens counts. Output counts double, because it is made one token a step."""
    return _PROMPT_WEIGHT * num_prompt_tokens + _OUTPUT_WEIGHT * num_output_tokens


def level_of(turn: Turn, highest: int) -> int:
    """The priority that the request has by now, where `highest` is the highest one asked for in the queue."""
    return min(highest, turn.priority + int(turn.waited_s / AGEING_S))


def take_turns(turns: Sequence[Turn], served: Mapping[Key, float]) -> Iterator[str]:
    """The ids of all waiting requests in the order in which they start, drawn one by one.

    Args:
        turns: in order of arrival, which is kept within a key and a level.
        served: what each key was served, in the unit of `weigh`; nothing where a key is missing.
    """
    if not turns:
        return
    highest = max(turn.priority for turn in turns)
    levels: dict[int, dict[Key, deque[Turn]]] = defaultdict(lambda: defaultdict(deque))
    for turn in turns:
        levels[level_of(turn, highest)][turn.key_id].append(turn)
    counts = {turn.key_id: served.get(turn.key_id, 0.0) for turn in turns}
    for level in sorted(levels, reverse=True):
        yield from _take_fair_turns(levels[level], counts)


def _take_fair_turns(queues: dict[Key, deque[Turn]], counts: dict[Key, float]) -> Iterator[str]:
    """Least served first; on a tie who has waited longest. Whoever is drawn is charged its prompt at once."""
    while queues:
        key = min(queues, key=lambda one: (counts[one], -queues[one][0].waited_s))
        turn = queues[key].popleft()
        counts[key] += weigh(turn.num_prompt_tokens, 0)
        if not queues[key]:
            del queues[key]
        yield turn.request_id


def lift(served: Mapping[Key, float], key: Key, waiting: Collection[Key]) -> float:
    """The count of a key that begins to wait beside the keys `waiting`: its own, but not below the least of theirs."""
    own = served.get(key, 0.0)
    return max(own, min((served.get(other, 0.0) for other in waiting), default=own))


def forget(served: Mapping[Key, float], active: Collection[Key]) -> dict[Key, float]:
    """The counts that still matter: those of keys with requests here, and of others that are ahead of the least of
    them. For all the rest `lift` gives the same whether they are known or not."""
    if not active:
        return {}
    least = min(served.get(key, 0.0) for key in active)
    return {key: count for key, count in served.items() if key in active or count > least}
