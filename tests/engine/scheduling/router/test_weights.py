from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from engine.scheduling.router.weights import pick_weighted

WEIGHTS = st.dictionaries(st.sampled_from("abcde"), st.floats(0.0, 10.0), min_size=1).filter(
    lambda weights: any(weight > 0.01 for weight in weights.values())
)


def test_the_weights_hold_in_the_long_run() -> None:
    weights = {"stable": 90.0, "canary": 9.0, "shadow": 1.0}
    counts = Counter(pick_weighted(f"request-{number}", weights) for number in range(20_000))
    for name, weight in weights.items():
        expected = 20_000 * weight / 100
        assert abs(counts[name] - expected) < 5 * (expected * (1 - weight / 100)) ** 0.5, counts


@given(WEIGHTS, st.text())
def test_nothing_falls_to_weight_zero_and_one_key_falls_alike(weights: dict[str, float], key: str) -> None:
    chosen = pick_weighted(key, weights)
    assert weights[chosen] > 0
    assert pick_weighted(key, dict(reversed(weights.items()))) == chosen


@given(WEIGHTS, st.text())
def test_when_another_goes_away_a_key_stays(weights: dict[str, float], key: str) -> None:
    chosen = pick_weighted(key, weights)
    others = [name for name in weights if name != chosen]
    for gone in others:
        assert pick_weighted(key, {name: weight for name, weight in weights.items() if name != gone}) == chosen


@given(WEIGHTS, st.text())
def test_a_canary_that_grows_takes_and_gives_nothing_back(weights: dict[str, float], key: str) -> None:
    first = next(iter(weights))
    before = pick_weighted(key, weights)
    after = pick_weighted(key, {**weights, first: weights[first] + 5.0})
    assert after in (before, first)
