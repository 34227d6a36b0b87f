"""Perplexity and divergence of a real, tiny model, against the same numbers worked out another way."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from engine.errors import InvalidRequestError, StoreError
from engine.inference import attention
from engine.lab.quality import ReferenceLogProbs, measure_original, measure_variant, split_text
from engine.models.loader import LoadedModel

TEXT = "It is a truth universally acknowledged, that a number of bytes will do. " * 4


@pytest.fixture
def original(tmp_path: Path) -> Iterator[ReferenceLogProbs]:
    with tempfile.TemporaryFile(dir=tmp_path) as file:
        yield ReferenceLogProbs(file, tmp_path)


def ignore(_fraction: float) -> None:
    """No one listens."""


def test_perplexity_is_the_models_own_loss(tiny: LoadedModel, original: ReferenceLogProbs) -> None:
    found = measure_original(tiny, TEXT, 128, ignore, original)
    blocks = split_text(tiny, TEXT, 128)
    with torch.inference_mode(), attention.used(tiny.model, attention.REFERENCE):
        losses = [tiny.model(input_ids=torch.tensor([block]), labels=torch.tensor([block])).loss for block in blocks]
    assert found.perplexity.value == pytest.approx(float(torch.stack(losses).mean().exp()), rel=1e-4)
    assert found.num_tokens == 2 * 63
    assert (found.kl, found.top1_agreement) == (type(found.perplexity)(0.0), 1.0)


def test_a_model_does_not_differ_from_itself(tiny: LoadedModel, original: ReferenceLogProbs) -> None:
    first = measure_original(tiny, TEXT, 192, ignore, original)
    again = measure_variant(tiny, TEXT, 192, ignore, original)
    assert again.kl is not None
    assert again.kl.value == pytest.approx(0.0, abs=1e-9)
    assert again.top1_agreement == 1.0
    assert again.perplexity == first.perplexity
    assert again.perplexity_ratio is not None
    assert again.perplexity_ratio.value == 1.0


def test_a_changed_model_differs_and_is_put_right_again(tiny: LoadedModel, original: ReferenceLogProbs) -> None:
    measure_original(tiny, TEXT, 128, ignore, original)
    norm = tiny.model.model.norm
    kept = norm.weight.detach().clone()
    norm.weight.data *= 0.8
    try:
        changed = measure_variant(tiny, TEXT, 128, ignore, original)
    finally:
        norm.weight.data.copy_(kept)
    assert changed.kl is not None
    assert changed.kl_p95 is not None
    assert 0.001 < changed.kl.value < changed.kl_p95
    assert changed.top1_agreement == 1.0  # a temperature changes no order


def test_without_an_original_there_is_perplexity_alone(tiny: LoadedModel, original: ReferenceLogProbs) -> None:
    alone = measure_variant(tiny, TEXT, 128, ignore, None)
    assert alone.perplexity == measure_original(tiny, TEXT, 128, ignore, original).perplexity
    assert (alone.kl, alone.kl_p95, alone.perplexity_ratio, alone.top1_agreement) == (None, None, None, None)
    assert alone.num_tokens == 2 * 63


def test_blocks_are_equally_long_and_in_order(tiny: LoadedModel) -> None:
    blocks = split_text(tiny, TEXT, 128)
    ids = tiny.tokenizer(TEXT, add_special_tokens=False)["input_ids"]
    assert [len(block) for block in blocks] == [64, 64]
    assert blocks[0] + blocks[1] == ids[:128]


def test_a_text_of_less_than_two_blocks_is_refused(tiny: LoadedModel) -> None:
    with pytest.raises(InvalidRequestError, match="the text has 5 tokens of this model and at least 256 are needed"):
        split_text(tiny, "short", 2_048)


def test_what_does_not_fit_on_the_disk_is_refused_before(original: ReferenceLogProbs) -> None:
    with pytest.raises(StoreError, match=r"take 1000000000\.0 GB and .* free: free space there or take a shorter"):
        original.check_space(10**18)


def test_rows_come_back_as_they_were(original: ReferenceLogProbs) -> None:
    rows = [np.random.default_rng(seed).normal(size=(3, 5)).astype(np.float32) for seed in range(2)]
    for index, block in enumerate(rows):
        original.append(block, float(index))
    for _ in range(2):
        assert all(np.array_equal(one, other) for one, other in zip(original.blocks(), rows, strict=True))
    assert (original.num_rows, original.block_nll) == (6, [0.0, 1.0])


def test_progress_may_end_it(tiny: LoadedModel, original: ReferenceLogProbs) -> None:
    def stop(fraction: float) -> None:
        if fraction > 0:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        measure_original(tiny, TEXT, 128, stop, original)
    assert not original.is_whole
