from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from engine.inference.request import SamplingParams
from engine.inference.sampling import apply_bias, apply_penalties, draw, keep_mask, sample

Floats = NDArray[np.float64]

_NONE = torch.tensor([], dtype=torch.long)
_GREEDY = SamplingParams(temperature=0.0)
# Multiples of a sixteenth are exact in float32, and ties are frequent.
_LOGITS = st.lists(st.integers(-160, 160).map(lambda value: value / 16), min_size=2, max_size=40)
_IDS = st.lists(st.integers(0, 39), max_size=20)


def _softmax(row: Floats) -> Floats:
    powers = np.exp(row - row.max())
    return np.asarray(powers / powers.sum())


def _keep(probabilities: Floats, params: SamplingParams) -> tuple[set[int], set[int]]:
    """Tokens that must survive, and those that may, because they are tied with or within rounding of a border."""
    order = sorted(range(len(probabilities)), key=lambda index: -probabilities[index])
    floors = [0.0]
    if 0 < params.top_k < len(order):
        floors.append(probabilities[order[params.top_k - 1]])
    must = may = max(floors)
    if params.top_p < 1.0:
        passed = [index for index in order if probabilities[index] >= must]
        shares = np.cumsum(probabilities[passed]) / probabilities[passed].sum()
        strict = next(index for index, share in zip(passed, shares, strict=True) if share >= params.top_p - 1e-5)
        loose = next((i for i, share in zip(passed, shares, strict=True) if share >= params.top_p + 1e-5), passed[-1])
        must, may = max(must, probabilities[strict]), max(may, probabilities[loose])
    bound = params.min_p * probabilities.max()
    return (
        {int(index) for index in order if probabilities[index] >= max(must, bound) * (1 + 1e-5)} | {order[0]},
        {int(index) for index in order if probabilities[index] >= max(may, bound) * (1 - 1e-5)},
    )


@given(
    logits=_LOGITS,
    top_k=st.integers(0, 45),
    top_p=st.floats(0.01, 1.0),
    min_p=st.one_of(st.just(0.0), st.floats(0.0, 1.0)),
)
def test_keep_mask_equals_a_plain_reference(logits: list[float], top_k: int, top_p: float, min_p: float) -> None:
    params = SamplingParams(top_k=top_k, top_p=top_p, min_p=min_p)
    probabilities = _softmax(np.array(logits))
    mask = keep_mask(torch.tensor(probabilities, dtype=torch.float32), params)
    kept = set(range(len(logits))) if mask is None else set(torch.nonzero(mask).flatten().tolist())
    must, may = _keep(probabilities, params)
    assert must <= kept <= may


@pytest.mark.parametrize(
    ("params", "kept"),
    [
        (SamplingParams(top_k=1), [0]),
        (SamplingParams(top_k=3), [0, 1, 2]),
        (SamplingParams(top_k=5), None),
        (SamplingParams(top_p=0.4), [0]),
        (SamplingParams(top_p=0.41), [0, 1]),
        (SamplingParams(top_p=0.75), [0, 1, 2]),
        (SamplingParams(min_p=0.5), [0, 1]),
        (SamplingParams(min_p=1.0), [0]),
        (SamplingParams(top_k=2, top_p=0.57), [0]),
        (SamplingParams(top_k=4, top_p=0.9, min_p=0.3), [0, 1, 2]),
        (SamplingParams(), None),
    ],
)
def test_keep_mask_by_hand(params: SamplingParams, kept: list[int] | None) -> None:
    mask = keep_mask(torch.tensor([0.4, 0.3, 0.15, 0.1, 0.05]), params)
    assert (None if mask is None else torch.nonzero(mask).flatten().tolist()) == kept


def test_tokens_tied_with_the_last_survivor_survive() -> None:
    mask = keep_mask(torch.tensor([0.25, 0.25, 0.25, 0.25]), SamplingParams(top_k=1))
    assert mask is None or bool(mask.all())


def test_a_nucleus_wider_than_the_first_candidates() -> None:
    probabilities = torch.full((4_096,), 1 / 4_096)
    probabilities[7] *= 2
    mask = keep_mask(probabilities / probabilities.sum(), SamplingParams(top_p=0.9))
    assert mask is None or int(mask.sum()) == 4_096
    slope = torch.arange(4_096, 0, -1, dtype=torch.float32)
    slope /= slope.sum()
    kept = keep_mask(slope, SamplingParams(top_p=0.5))
    assert kept is not None
    expected = int((slope.double().cumsum(0) < 0.5).sum()) + 1
    assert abs(int(kept.sum()) - expected) <= 1


@given(
    logits=_LOGITS,
    prompt=_IDS,
    output=_IDS,
    repetition=st.floats(0.5, 2.0),
    presence=st.floats(-2, 2),
    frequency=st.floats(-2, 2),
)
def test_penalties_equal_their_definitions(
    logits: list[float], prompt: list[int], output: list[int], repetition: float, presence: float, frequency: float
) -> None:
    prompt, counts = [i for i in prompt if i < len(logits)], Counter(i for i in output if i < len(logits))
    params = SamplingParams(repetition_penalty=repetition, presence_penalty=presence, frequency_penalty=frequency)
    expected = np.array(logits)
    for index in {*prompt, *counts}:
        expected[index] = expected[index] / repetition if expected[index] > 0 else expected[index] * repetition
    for index, count in counts.items():
        expected[index] -= presence + frequency * count
    row = torch.tensor(logits)
    before = row.clone()
    actual = apply_penalties(row, params, torch.tensor(sorted(set(prompt)), dtype=torch.long), counts)
    np.testing.assert_allclose(actual.numpy(), expected, rtol=1e-5, atol=1e-4)
    assert torch.equal(row, before)


def test_penalties_count_the_prompt_only_for_repetition() -> None:
    params = SamplingParams(presence_penalty=1.0, frequency_penalty=1.0)
    row = torch.tensor([1.0, 2.0, 3.0])
    assert apply_penalties(row, params, torch.tensor([0, 1]), Counter()).tolist() == [1.0, 2.0, 3.0]


def test_neutral_parameters_leave_the_row_itself() -> None:
    row = torch.tensor([1.0, 2.0])
    assert apply_bias(apply_penalties(row, SamplingParams(), _NONE, Counter([1])), SamplingParams()) is row


@given(logits=_LOGITS, bias=st.dictionaries(st.integers(0, 39), st.floats(-100, 100), max_size=10))
def test_bias_is_added(logits: list[float], bias: dict[int, float]) -> None:
    bias = {index: value for index, value in bias.items() if index < len(logits)}
    expected = np.array(logits)
    for index, value in bias.items():
        expected[index] += value
    actual = apply_bias(torch.tensor(logits), SamplingParams(logit_bias=bias))
    np.testing.assert_allclose(actual.numpy(), expected, rtol=1e-5, atol=1e-4)


def test_bias_of_a_hundred_forces_a_token_and_minus_a_hundred_bans_it() -> None:
    row = torch.tensor([5.0, 0.0, 4.0])
    assert sample(row, replace(_GREEDY, logit_bias={1: 100.0}), _NONE, Counter(), 0.0).token_id == 1
    assert sample(row, replace(_GREEDY, logit_bias={0: -100.0}), _NONE, Counter(), 0.0).token_id == 2


@given(logits=_LOGITS)
def test_temperature_zero_takes_the_likeliest(logits: list[float]) -> None:
    token_id = sample(torch.tensor(logits), _GREEDY, _NONE, Counter(), 0.7).token_id
    assert logits[token_id] == max(logits)


@given(logits=_LOGITS, temperature=st.sampled_from([0.1, 0.7, 1.0, 2.0]), uniform=st.floats(0, 1, exclude_max=True))
def test_draw_inverts_the_cumulative_distribution(logits: list[float], temperature: float, uniform: float) -> None:
    cumulative = np.cumsum(_softmax(np.array(logits) / temperature))
    borders = np.abs(cumulative - uniform)
    assume(float(borders.min()) > 1e-5)
    token_id = draw(torch.tensor(logits), SamplingParams(temperature=temperature), uniform)
    assert token_id == int(np.searchsorted(cumulative, uniform, side="right"))


@given(
    logits=_LOGITS,
    top_k=st.integers(0, 5),
    top_p=st.floats(0.05, 1.0),
    uniform=st.sampled_from([0.0, 0.5, 0.999999, 1 - 2**-53]),
)
def test_draw_never_leaves_the_kept_set(logits: list[float], top_k: int, top_p: float, uniform: float) -> None:
    params = SamplingParams(top_k=top_k, top_p=top_p)
    probabilities = torch.softmax(torch.tensor(logits), dim=-1)
    mask = keep_mask(probabilities, params)
    token_id = draw(torch.tensor(logits), params, uniform)
    assert mask is None or bool(mask[token_id])


def test_edges_of_the_uniform_number() -> None:
    row = torch.tensor([-math.inf, 0.0, 0.0, -math.inf])
    assert draw(row, SamplingParams(), 0.0) == 1
    assert draw(row, SamplingParams(), 0.999999) == 2
    assert draw(row, SamplingParams(), 1 - 2**-53) == 2


@pytest.mark.parametrize("temperature", [1e-320, 1e-50, 1e-30, 1e-3])
def test_a_tiny_temperature_is_greedy(temperature: float) -> None:
    assert draw(torch.tensor([1.0, 3.0, 2.0]), SamplingParams(temperature=temperature), 0.9) == 1


@pytest.mark.parametrize(
    "params",
    [
        SamplingParams(),
        SamplingParams(temperature=0.5),
        SamplingParams(temperature=1.5, top_k=6),
        SamplingParams(top_p=0.8),
        SamplingParams(min_p=0.2, temperature=2.0),
    ],
)
def test_draws_follow_the_distribution(params: SamplingParams) -> None:
    generator = np.random.default_rng(3)
    logits = generator.normal(0, 1.5, 12)
    expected = _softmax(logits / params.temperature)
    _, kept = _keep(expected, params)
    expected = np.array([value if index in kept else 0.0 for index, value in enumerate(expected)])
    expected /= expected.sum()
    row, num_draws = torch.tensor(logits, dtype=torch.float32), 4_000
    drawn = Counter(draw(row, params, uniform) for uniform in generator.random(num_draws))
    assert set(drawn) <= kept
    counts = np.array([drawn[index] for index in sorted(kept)])
    ideal = expected[sorted(kept)] * num_draws
    chi_square = float(((counts - ideal) ** 2 / ideal).sum())
    freedom = len(kept) - 1
    # The 1 - 1e-6 quantile of chi-square stays below this for these few degrees of freedom; the seed is fixed.
    assert chi_square < freedom + 5 * math.sqrt(2 * freedom) + 20


@pytest.mark.parametrize("bad", [[math.nan, 1.0], [1.0, math.inf], [-math.inf, -math.inf]])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_rows_that_are_not_finite_are_refused(bad: list[float], temperature: float) -> None:
    with pytest.raises(FloatingPointError, match="not finite"):
        sample(torch.tensor(bad), SamplingParams(temperature=temperature), _NONE, Counter(), 0.5)


@given(logits=_LOGITS, top=st.integers(0, 2), temperature=st.sampled_from([0.0, 0.3, 2.0]))
def test_logprobs_are_the_models_own(logits: list[float], top: int, temperature: float) -> None:
    params = SamplingParams(
        temperature=temperature,
        top_logprobs=top,
        presence_penalty=2.0,
        repetition_penalty=1.7,
        logit_bias={0: 5.0},
        top_k=1,
    )
    chosen = sample(torch.tensor(logits), params, torch.tensor([1]), Counter([0, 1]), 0.5)
    expected = np.log(_softmax(np.array(logits)))
    assert chosen.logprob == pytest.approx(expected[chosen.token_id], abs=1e-4)
    assert len(chosen.top) == top
    for token_id, value in chosen.top:
        assert value == pytest.approx(expected[token_id], abs=1e-4)
    assert [value for _, value in chosen.top] == pytest.approx(sorted(expected, reverse=True)[:top], abs=1e-4)


def test_no_logprobs_unless_asked_for() -> None:
    chosen = sample(torch.tensor([1.0, 2.0]), _GREEDY, _NONE, Counter(), 0.0)
    assert (chosen.logprob, chosen.top) == (None, ())


def test_half_precision_rows_are_sampled_in_float32() -> None:
    row = torch.tensor([1.0, 2.0, 3.0], dtype=torch.bfloat16)
    chosen = sample(row, replace(_GREEDY, top_logprobs=3), _NONE, Counter(), 0.0)
    assert chosen.token_id == 2
    assert sum(math.exp(value) for _, value in chosen.top) == pytest.approx(1.0, abs=1e-6)
    assert row.dtype == torch.bfloat16


_RULES = [
    _GREEDY,
    SamplingParams(),
    SamplingParams(top_p=0.4),
    SamplingParams(top_k=1),
    SamplingParams(min_p=1.0),
    SamplingParams(temperature=0.0, logit_bias={0: 100.0}),
]


@given(_LOGITS, st.data(), st.sampled_from(_RULES), st.floats(0, 1, exclude_max=True))
def test_only_what_is_allowed_is_chosen(
    logits: list[float], data: st.DataObject, params: SamplingParams, uniform: float
) -> None:
    allowed = data.draw(st.sets(st.integers(0, len(logits) - 1), min_size=1))
    mask = torch.zeros(len(logits), dtype=torch.bool)
    mask[list(allowed)] = True
    chosen = sample(torch.tensor(logits), params, _NONE, Counter(), uniform, mask)
    assert chosen.token_id in allowed
    if len(allowed) == len(logits):
        assert chosen == sample(torch.tensor(logits), params, _NONE, Counter(), uniform)


def test_log_probabilities_are_the_models_own_whatever_is_allowed() -> None:
    params = SamplingParams(temperature=0.0, top_logprobs=2)
    mask = torch.tensor([True, False])
    masked = sample(torch.tensor([0.0, 3.0]), params, _NONE, Counter(), 0.0, mask)
    assert masked.token_id == 0
    assert masked.top[0][0] == 1
    assert masked.logprob == pytest.approx(-math.log(1 + math.exp(3)))


def test_nothing_that_is_allowed_has_a_chance() -> None:
    row = torch.tensor([-math.inf, 1.0])
    with pytest.raises(FloatingPointError, match="grammar"):
        sample(row, _GREEDY, _NONE, Counter(), 0.0, torch.tensor([True, False]))
