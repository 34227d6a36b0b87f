"""The statistics, by their laws."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from engine.lab.statistics import (
    Floats,
    agreement,
    estimate,
    kl_divergence,
    mean,
    median,
    negative_log_likelihoods,
    perplexity,
    perplexity_of_blocks,
    perplexity_ratio,
)


def log_softmax(logits: Floats) -> Floats:
    shifted = logits - logits.max(axis=-1, keepdims=True)
    normal: Floats = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return normal


LOGITS = arrays(np.float32, (4, 7), elements=st.floats(-30, 30, width=32))
NLLS = st.lists(st.floats(0, 12), min_size=2, max_size=20)


@given(LOGITS, LOGITS)
def test_divergence_is_never_negative(one: Floats, other: Floats) -> None:
    assert (kl_divergence(log_softmax(one), log_softmax(other)) >= 0).all()


@given(LOGITS)
def test_divergence_of_equals_is_zero(logits: Floats) -> None:
    assert (kl_divergence(log_softmax(logits), log_softmax(logits)) == 0).all()


def test_divergence_of_two_coins() -> None:
    fair, bent = np.log([[0.5, 0.5]]), np.log([[0.9, 0.1]])
    expected = 0.5 * math.log(0.5 / 0.9) + 0.5 * math.log(0.5 / 0.1)
    assert kl_divergence(fair, bent)[0] == pytest.approx(expected)
    assert kl_divergence(bent, fair)[0] != pytest.approx(expected)


def test_divergence_where_a_token_is_impossible() -> None:
    sure, fair = np.array([[0.0, -np.inf]]), np.log([[0.5, 0.5]])
    assert kl_divergence(sure, fair)[0] == pytest.approx(math.log(2))
    assert kl_divergence(fair, sure)[0] == math.inf


@given(LOGITS, st.lists(st.integers(0, 6), min_size=4, max_size=4))
def test_mean_likelihood_is_that_of_the_targets(logits: Floats, targets: list[int]) -> None:
    log_probs = log_softmax(logits)
    assert list(negative_log_likelihoods(log_probs, targets)) == [
        -log_probs[row, target] for row, target in enumerate(targets)
    ]


@given(st.integers(1, 200_000))
def test_perplexity_of_a_uniform_distribution_is_the_vocabulary(size: int) -> None:
    assert perplexity(math.log(size)) == pytest.approx(size)


def test_perplexity_without_bound() -> None:
    assert perplexity(1e6) == math.inf
    assert perplexity(0.0) == 1.0


def test_agreement_looks_at_the_top_alone() -> None:
    one = np.log([[0.5, 0.3, 0.2], [0.5, 0.3, 0.2]])
    other = np.log([[0.4, 0.2, 0.4 - 1e-6], [0.1, 0.8, 0.1]])
    assert list(agreement(one, other)) == [True, False]


@given(NLLS)
def test_an_interval_holds_its_mean_and_stays_within_the_values(values: list[float]) -> None:
    found = estimate(values, mean)
    assert found.low is not None
    assert found.high is not None
    assert min(values) - 1e-9 <= found.low <= found.value + 1e-9
    assert found.value - 1e-9 <= found.high <= max(values) + 1e-9


@given(st.lists(st.floats(1, 100), min_size=2, max_size=9))
def test_an_interval_of_a_median_is_made_of_the_values(values: list[float]) -> None:
    found = estimate(values, median)
    assert found.low is not None
    assert found.high is not None
    assert min(values) <= found.low <= found.value <= found.high <= max(values)


def test_one_value_has_no_interval() -> None:
    found = estimate([3.0], median)
    assert (found.value, found.low, found.high) == (3.0, None, None)


def test_what_is_not_finite_has_no_interval() -> None:
    found = perplexity_of_blocks([1.0, math.inf])
    assert (found.value, found.low) == (math.inf, None)


def test_more_values_narrow_the_interval() -> None:
    draws = np.random.default_rng(1).normal(5, 1, 400)
    few, many = estimate(draws[:10], mean), estimate(draws, mean)
    assert few.low is not None and few.high is not None  # noqa: PT018
    assert many.low is not None and many.high is not None  # noqa: PT018
    assert many.high - many.low < (few.high - few.low) / 2
    assert many.low < 5.05
    assert many.high > 4.95


def test_about_95_of_100_intervals_hold_the_truth() -> None:
    generator = np.random.default_rng(2)
    found = [estimate(generator.normal(0, 1, 16), mean) for _ in range(150)]
    held = sum(1 for one in found if one.low is not None and one.high is not None and one.low < 0 < one.high)
    assert 0.85 < held / len(found) <= 1.0


@given(NLLS)
def test_ratio_to_oneself_is_one_exactly(values: list[float]) -> None:
    found = perplexity_ratio(values, values)
    assert (found.value, found.low, found.high) == (1.0, 1.0, 1.0)


@given(NLLS, st.floats(0.01, 0.5))
def test_pairs_leave_out_how_hard_the_blocks_are(values: list[float], added: float) -> None:
    found = perplexity_ratio([value + added for value in values], values)
    assert found.value == pytest.approx(math.exp(added))
    assert found.low == pytest.approx(found.high)
