from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from engine.weights.eviction import Candidate, plan_eviction


def _candidate(name: str, last_used_s: float, files: dict[int, int], is_in_use: bool = False) -> Candidate:
    return Candidate(name, last_used_s, is_in_use, files)


OLD = _candidate("old", 1, {1: 10, 2: 5})
NEW = _candidate("new", 2, {3: 20, 2: 5})


def test_nothing_goes_while_it_fits() -> None:
    plan = plan_eviction([OLD, NEW], other_bytes=0, need_bytes=5, max_bytes=40)
    assert (plan.remove, plan.left_bytes, plan.over_bytes) == ((), 35, 0)


def test_the_least_used_goes_first_and_shared_files_stay() -> None:
    plan = plan_eviction([NEW, OLD], other_bytes=0, need_bytes=5, max_bytes=39)
    assert (plan.remove, plan.left_bytes) == (("old",), 25)


def test_what_is_in_use_stays() -> None:
    used = _candidate("used", 0, {1: 10}, is_in_use=True)
    plan = plan_eviction([used, NEW], other_bytes=3, need_bytes=30, max_bytes=30)
    assert plan.remove == ("new",)
    assert plan.in_use == ("used",)
    assert (plan.left_bytes, plan.over_bytes) == (13, 13)


_CANDIDATES = st.lists(
    st.tuples(st.floats(0, 100), st.dictionaries(st.integers(0, 9), st.just(7), max_size=5), st.booleans()), max_size=6
).map(lambda rows: [_candidate(str(index), used, files, busy) for index, (used, files, busy) in enumerate(rows)])


@given(_CANDIDATES, st.integers(0, 50), st.integers(0, 50), st.integers(0, 200))
def test_the_rules_hold(candidates: list[Candidate], other_bytes: int, need_bytes: int, max_bytes: int) -> None:
    plan = plan_eviction(candidates, other_bytes, need_bytes, max_bytes)
    left = [candidate for candidate in candidates if candidate.id not in plan.remove]
    kept = {key: size for candidate in left for key, size in candidate.files.items()}
    assert plan.left_bytes == other_bytes + sum(kept.values())
    assert not set(plan.remove) & set(plan.in_use)
    assert plan.over_bytes == max(0, plan.left_bytes + need_bytes - max_bytes)
    if plan.over_bytes:
        assert all(candidate.is_in_use for candidate in left)
    removed = [candidate.last_used_s for candidate in candidates if candidate.id in plan.remove]
    free = [candidate.last_used_s for candidate in left if not candidate.is_in_use]
    assert not removed or not free or max(removed) <= min(free)
