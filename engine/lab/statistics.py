"""The statistics of the lab: pure functions of arrays.

Log-probabilities are natural logarithms, so information is in nats.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.lab.experiment import Estimate

Floats = NDArray[np.floating[Any]]
Statistic = Callable[[NDArray[np.float64]], float]

_NUM_RESAMPLES = 2_000
_TAIL = 2.5  # percent on either side of a 95 % interval


def negative_log_likelihoods(log_probs: Floats, targets: Sequence[int]) -> NDArray[np.float64]:
    """`-ln q(target)` of each row of `log_probs` (tokens, vocabulary)."""
    rows = np.arange(len(targets))
    given: NDArray[np.float64] = log_probs[rows, np.asarray(targets)].astype(np.float64)
    return -given


def perplexity(mean_nll: float) -> float:
    """`exp` of the mean negative log-likelihood a token (Jelinek, Mercer, Bahl and Baker, 1977): of how many equally
    likely tokens the model seems to choose. Infinite where a token was held impossible."""
    with np.errstate(over="ignore"):
        return float(np.exp(np.float64(mean_nll)))


def kl_divergence(log_p: Floats, log_q: Floats) -> NDArray[np.float64]:
    """`KL(p || q) = sum p (ln p - ln q)` of each row (Kullback and Leibler, 1951), in nats.

    It is never negative; rounding can make a row's sum so, by less than the precision of its terms, and reads as 0.
    A token that p holds impossible adds nothing; one that only q does makes it infinite.
    """
    with np.errstate(invalid="ignore"):
        p = np.exp(log_p)
        terms = np.where(p > 0, p * (log_p - log_q), 0)
    total: NDArray[np.float64] = terms.sum(axis=-1, dtype=np.float64)
    return np.maximum(total, 0)


def agreement(log_p: Floats, log_q: Floats) -> NDArray[np.bool_]:
    """For each row, whether both hold the same token most likely."""
    same: NDArray[np.bool_] = log_p.argmax(axis=-1) == log_q.argmax(axis=-1)
    return same


def mean(values: NDArray[np.float64]) -> float:
    """The arithmetic mean."""
    return float(values.mean())


def median(values: NDArray[np.float64]) -> float:
    """The middle value, or the mean of the middle two."""
    return float(np.median(values))


def estimate(values: Sequence[float] | NDArray[np.float64], statistic: Statistic) -> Estimate:
    """The statistic of the values with its 95 % percentile bootstrap interval (Efron, 1979): the values are drawn anew
    with replacement 2,000 times, from a fixed seed, and the middle 95 % of the statistics reported. Of two or three
    values that is hardly more than their range; of one there is no interval."""
    found = np.asarray(values, dtype=np.float64)
    value = statistic(found)
    if len(found) < 2 or not np.isfinite(found).all():
        return Estimate(value)
    draws = np.random.default_rng(0).integers(0, len(found), (_NUM_RESAMPLES, len(found)))
    low, high = np.percentile([statistic(row) for row in found[draws]], (_TAIL, 100 - _TAIL))
    return Estimate(value, float(low), float(high))


def perplexity_of_blocks(block_nll: Sequence[float]) -> Estimate:
    """Perplexity over equally long blocks of text, from the mean negative log-likelihood of each."""
    return _exp(estimate(block_nll, mean))


def perplexity_ratio(block_nll: Sequence[float], reference_nll: Sequence[float]) -> Estimate:
    """Perplexity over the reference's, `exp` of the mean difference of the same blocks. Taking blocks in pairs leaves
    out how hard each of them is for both."""
    return _exp(estimate(np.subtract(block_nll, reference_nll), mean))


def _exp(inner: Estimate) -> Estimate:
    low = None if inner.low is None else perplexity(inner.low)
    high = None if inner.high is None else perplexity(inner.high)
    return Estimate(perplexity(inner.value), low, high)
