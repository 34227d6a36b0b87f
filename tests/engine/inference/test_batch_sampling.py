from __future__ import annotations

from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.inference.batch_sampling import Wish, sample_batch
from engine.inference.request import SamplingParams
from engine.inference.sampling import Sampled, keep_mask, sample

_VOCAB = 24
_NONE = torch.tensor([], dtype=torch.long)
_PARAMS = st.builds(
    SamplingParams,
    temperature=st.sampled_from([0.0, 0.3, 1.0, 1.7]),
    top_k=st.integers(0, 30),
    top_p=st.sampled_from([0.05, 0.5, 0.9, 1.0]),
    min_p=st.sampled_from([0.0, 0.1, 0.9]),
    presence_penalty=st.sampled_from([0.0, 1.5]),
    frequency_penalty=st.sampled_from([0.0, 0.5]),
    repetition_penalty=st.sampled_from([1.0, 1.3]),
    logit_bias=st.sampled_from([{}, {3: 5.0}]),
    top_logprobs=st.sampled_from([None, 0, 3]),
)
_WISHES = st.builds(
    Wish,
    params=_PARAMS,
    prompt_ids=st.just(torch.tensor([1, 5])),
    output_counts=st.sampled_from([Counter(), Counter({2: 3, 5: 1})]),
    uniform=st.floats(0.0, 0.999),
    allowed=st.sampled_from([None, torch.arange(_VOCAB) % 3 == 0]),
)


def _alone(row: torch.Tensor, wish: Wish) -> Sampled:
    return sample(row, wish.params, wish.prompt_ids, wish.output_counts, wish.uniform, wish.allowed)


@given(st.lists(_WISHES, min_size=1, max_size=5), st.integers(0, 2**31))
def test_a_batch_is_sampled_as_its_rows_are(wishes: list[Wish], seed: int) -> None:
    """Distinct logits, so that no border lies between equal ones; a draw that lands on a border within rounding may
    differ, and then by what it is next to."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(len(wishes), _VOCAB, generator=generator) * 3
    before = logits.clone()
    for row, wish, ours in zip(logits, wishes, sample_batch(logits, wishes).read(), strict=True):
        expected = _alone(row, wish)
        assert isinstance(ours, Sampled)
        if ours.token_id != expected.token_id:
            assert wish.params.temperature > 0
            nudged = {
                _alone(row, Wish(wish.params, wish.prompt_ids, wish.output_counts, moved, wish.allowed)).token_id
                for moved in (max(0.0, wish.uniform - 1e-5), min(0.999999, wish.uniform + 1e-5))
            }
            assert ours.token_id in nudged
            continue
        assert ours.logprob == (None if expected.logprob is None else pytest.approx(expected.logprob, abs=1e-5))
        assert [token for token, _ in ours.top] == [token for token, _ in expected.top]
    assert torch.equal(logits, before)


@pytest.mark.parametrize("params", [SamplingParams(top_p=0.99), SamplingParams(top_k=700), SamplingParams(top_p=0.3)])
def test_a_wide_and_flat_distribution_keeps_what_sampling_keeps(params: SamplingParams) -> None:
    """More survivors than a short list of candidates would hold: which they are shows at the ends of the draw."""
    row = torch.randn(2_000, generator=torch.Generator().manual_seed(3)) / 10
    kept = keep_mask(torch.softmax(row, -1), params)
    assert kept is not None
    places = kept.nonzero()[:, 0]
    ends = [Wish(params, _NONE, Counter(), uniform) for uniform in (0.0, 1 - 1e-9)]
    chosen = [found.token_id for found in sample_batch(row.repeat(2, 1), ends).read() if isinstance(found, Sampled)]
    assert chosen == [int(places[0]), int(places[-1])]


def test_a_row_that_is_not_finite_fails_alone() -> None:
    logits = torch.zeros(3, _VOCAB)
    logits[1, 4] = torch.nan
    nothing = Wish(SamplingParams(), _NONE, Counter(), 0.5, torch.zeros(_VOCAB, dtype=torch.bool))
    plain = Wish(SamplingParams(), _NONE, Counter(), 0.5)
    fine, broken, stuck = sample_batch(logits, [plain, plain, nothing]).read()
    assert isinstance(fine, Sampled)
    assert isinstance(broken, FloatingPointError)
    assert "not finite" in str(broken)
    assert isinstance(stuck, FloatingPointError)
    assert "grammar" in str(stuck)
