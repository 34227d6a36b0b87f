from __future__ import annotations

from collections import Counter
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from engine.scheduling.fairness import AGEING_S, Key, Turn, forget, level_of, lift, take_turns, weigh

_KEYS = st.sampled_from(["a", "b", "c", None])
_SERVED = st.dictionaries(_KEYS, st.floats(0, 10_000))


@st.composite
def _turns(draw: st.DrawFn, max_size: int = 12) -> list[Turn]:
    """In order of arrival, so who comes later has waited for less."""
    waits_s = sorted(draw(st.lists(st.floats(0, 300), max_size=max_size)), reverse=True)
    return [
        Turn(f"r{index}", draw(_KEYS), draw(st.integers(-10, 10)), waited_s, draw(st.integers(1, 500)))
        for index, waited_s in enumerate(waits_s)
    ]


def _turn(name: str, key: Key = None, priority: int = 0, waited_s: float = 0.0, tokens: int = 10) -> Turn:
    return Turn(name, key, priority, waited_s, tokens)


def _by_id(turns: list[Turn]) -> dict[str, Turn]:
    return {turn.request_id: turn for turn in turns}


@given(turns=_turns(), served=_SERVED)
def test_everyone_gets_exactly_one_turn(turns: list[Turn], served: dict[Key, float]) -> None:
    assert sorted(take_turns(turns, served)) == sorted(turn.request_id for turn in turns)


@given(turns=_turns(), served=_SERVED)
def test_who_counts_higher_starts_first(turns: list[Turn], served: dict[Key, float]) -> None:
    highest = max((turn.priority for turn in turns), default=0)
    levels = [level_of(_by_id(turns)[name], highest) for name in take_turns(turns, served)]
    assert levels == sorted(levels, reverse=True)


@given(turns=_turns(), served=_SERVED)
def test_a_keys_own_requests_keep_their_order(turns: list[Turn], served: dict[Key, float]) -> None:
    same = [replace(turn, priority=3) for turn in turns]
    order = list(take_turns(same, served))
    for key in {turn.key_id for turn in same}:
        of_key = [name for name in order if _by_id(same)[name].key_id == key]
        assert of_key == [turn.request_id for turn in same if turn.key_id == key]


@given(turns=_turns(), served=_SERVED)
def test_waiting_changes_nothing_where_all_ask_for_the_same_priority(
    turns: list[Turn], served: dict[Key, float]
) -> None:
    same = [replace(turn, priority=2) for turn in turns]
    assert {level_of(turn, 2) for turn in same} <= {2}
    long_ago = [replace(turn, waited_s=turn.waited_s + 1_000) for turn in same]
    assert list(take_turns(same, served)) == list(take_turns(long_ago, served))


@given(num_steps=st.integers(1, 200), gap_s=st.floats(0.1, 20), priority=st.integers(-10, 9))
def test_a_low_priority_is_overtaken_for_a_bounded_time(num_steps: int, gap_s: float, priority: int) -> None:
    """A stream of urgent requests of one key, one start each `gap_s`, and one that is not urgent of another."""
    served: dict[Key, float] = {}
    for step in range(num_steps):
        now_s = step * gap_s
        patient = _turn("patient", "quiet", priority, now_s)
        urgent = _turn(f"u{step}", "loud", 10, 0.0)
        first = next(take_turns([patient, urgent], served))
        if first == "patient":
            return
        served["loud"] = served.get("loud", 0.0) + weigh(10, 5)
        assert now_s < (10 - priority) * AGEING_S + gap_s
    assert (num_steps - 1) * gap_s < (10 - priority) * AGEING_S + gap_s


@given(num_loud=st.integers(1, 64), num_quiet=st.integers(1, 10), tokens=st.integers(1, 100))
def test_a_flood_does_not_hold_up_another_key(num_loud: int, num_quiet: int, tokens: int) -> None:
    turns = [_turn(f"loud{index}", "loud", waited_s=99, tokens=tokens) for index in range(num_loud)]
    turns += [_turn(f"quiet{index}", "quiet", waited_s=1, tokens=tokens) for index in range(num_quiet)]
    order = list(take_turns(turns, {"loud": 5_000.0}))
    assert all(name.startswith("quiet") for name in order[:1])
    shares = Counter(name.rstrip("0123456789") for name in order[: 2 * min(num_loud, num_quiet)])
    assert shares["quiet"] >= min(num_loud, num_quiet)


def test_keys_with_the_same_count_take_turns_by_tokens() -> None:
    turns = [_turn("a1", "a", waited_s=9, tokens=30), _turn("a2", "a", waited_s=8, tokens=30)]
    turns += [_turn(f"b{index}", "b", waited_s=5, tokens=10) for index in range(1, 5)]
    assert list(take_turns(turns, {})) == ["a1", "b1", "b2", "b3", "a2", "b4"]


def test_nobody_waits() -> None:
    assert list(take_turns([], {})) == []


def test_output_counts_double() -> None:
    assert weigh(10, 0) == 10
    assert weigh(0, 10) == 20


@given(served=_SERVED, key=_KEYS, waiting=st.sets(_KEYS))
def test_who_comes_back_gets_no_credit_and_loses_none(served: dict[Key, float], key: Key, waiting: set[Key]) -> None:
    lifted = lift(served, key, waiting)
    assert lifted >= served.get(key, 0.0)
    if waiting:
        assert lifted >= min(served.get(other, 0.0) for other in waiting)
    else:
        assert lifted == served.get(key, 0.0)


@given(served=_SERVED, key=_KEYS, active=st.sets(_KEYS, min_size=1))
def test_what_is_forgotten_makes_no_difference(served: dict[Key, float], key: Key, active: set[Key]) -> None:
    kept = forget(served, active)
    assert set(active) & set(served) <= set(kept)
    assert lift(kept, key, active) == lift(served, key, active)


def test_an_idle_instance_remembers_nothing() -> None:
    assert forget({"a": 5.0}, ()) == {}
