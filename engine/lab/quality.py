"""How well a variant predicts a text, against the original: teacher-forced forward passes over blocks of it.

The original's log-probabilities are kept on disk in float32, 4 bytes a token and entry of the vocabulary. In float16
they would round by up to 2^-11 of their value, 0.005 at -10, which is more than 8-bit weights change them by.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO

import numpy as np
import torch
from numpy.typing import NDArray

from engine.errors import InvalidRequestError, StoreError, WeightsError
from engine.inference import attention
from engine.lab.experiment import Estimate, Quality
from engine.lab.statistics import (
    agreement,
    estimate,
    kl_divergence,
    mean,
    negative_log_likelihoods,
    perplexity_of_blocks,
    perplexity_ratio,
)
from engine.models.loader import LoadedModel

BLOCK_TOKENS = 128

OnFraction = Callable[[float], None]
Rows = NDArray[np.float32]


class ReferenceLogProbs:
    """The original's log-probabilities by block, in `file`, an open binary file in `folder`. `is_whole` once all blocks
    are there."""

    def __init__(self, file: IO[bytes], folder: Path) -> None:
        self._file, self._folder = file, folder
        self._shapes: list[tuple[int, ...]] = []
        self.block_nll: list[float] = []
        self.is_whole = False

    @property
    def num_rows(self) -> int:
        """How many tokens were predicted."""
        return sum(shape[0] for shape in self._shapes)

    def append(self, rows: Rows, nll: float) -> None:
        """Keep the next block's rows and mean negative log-likelihood."""
        try:
            self._file.write(np.ascontiguousarray(rows).data)
        except OSError as error:
            raise StoreError(
                f"the original's log-probabilities cannot be kept in {self._folder}: {error.strerror}; free space "
                "there or take a shorter text"
            ) from error
        self._shapes.append(rows.shape)
        self.block_nll.append(nll)

    def blocks(self) -> Iterator[Rows]:
        """The rows, block by block."""
        self._file.seek(0)  # which writes what is buffered
        for shape in self._shapes:
            size = 4 * shape[0] * shape[1]
            yield np.frombuffer(self._file.read(size), dtype=np.float32).reshape(shape)

    def check_space(self, num_bytes: int) -> None:
        """Raise StoreError unless the disk has room for so much."""
        free_bytes = shutil.disk_usage(self._folder).free
        if num_bytes > free_bytes:
            raise StoreError(
                f"the original's log-probabilities take {num_bytes / 1e9:.1f} GB and {self._folder} has "
                f"{free_bytes / 1e9:.1f} GB free: free space there or take a shorter text"
            )


def measure_original(
    loaded: LoadedModel, text: str, num_tokens: int, on_fraction: OnFraction, keep: ReferenceLogProbs
) -> Quality:
    """The original's own figures; what the variants are compared with goes into `keep`. From itself it differs by
    nothing, by definition.

    Raises:
        InvalidRequestError: the text is too short.
        StoreError: the disk has no room.
        WeightsError: the model gives no numbers.
    """
    blocks = split_text(loaded, text, num_tokens)
    keep.check_space(4 * loaded.info.vocab_size * sum(map(len, blocks)))
    for targets, rows in _predict(loaded, blocks, on_fraction):
        keep.append(rows, mean(negative_log_likelihoods(rows, targets)))
    keep.is_whole = True
    return Quality(keep.num_rows, perplexity_of_blocks(keep.block_nll), Estimate(1.0), Estimate(0.0), 0.0, 1.0)


def measure_variant(
    loaded: LoadedModel, text: str, num_tokens: int, on_fraction: OnFraction, original: ReferenceLogProbs | None
) -> Quality:
    """A variant's figures against `original`, over the same text; without one, its perplexity alone. Raises as
    `measure_original` does."""
    if original is None:
        return _measure_alone(loaded, text, num_tokens, on_fraction)
    nll: list[float] = []
    divergences: list[NDArray[np.float64]] = []
    agreements: list[NDArray[np.bool_]] = []
    predicted = _predict(loaded, split_text(loaded, text, num_tokens), on_fraction)
    for (targets, rows), expected in zip(predicted, original.blocks(), strict=True):
        nll.append(mean(negative_log_likelihoods(rows, targets)))
        divergences.append(kl_divergence(expected, rows))
        agreements.append(agreement(expected, rows))
    return Quality(
        original.num_rows,
        perplexity_of_blocks(nll),
        perplexity_ratio(nll, original.block_nll),
        estimate([mean(block) for block in divergences], mean),
        float(np.percentile(np.concatenate(divergences), 95)),
        float(np.concatenate(agreements).mean()),
    )


def _measure_alone(loaded: LoadedModel, text: str, num_tokens: int, on_fraction: OnFraction) -> Quality:
    blocks = split_text(loaded, text, num_tokens)
    found = [negative_log_likelihoods(rows, targets) for targets, rows in _predict(loaded, blocks, on_fraction)]
    perplexity = perplexity_of_blocks([mean(nll) for nll in found])
    return Quality(sum(map(len, found)), perplexity, None, None, None, None)


def split_text(loaded: LoadedModel, text: str, num_tokens: int) -> list[list[int]]:
    """The text's first `num_tokens` as equally long blocks; what is left over at the end counts as nothing.

    Raises:
        InvalidRequestError: it does not fill two blocks, so nothing could be said about its spread.
    """
    ids: list[int] = loaded.tokenizer(text, add_special_tokens=False)["input_ids"][:num_tokens]
    length = min(BLOCK_TOKENS, num_tokens // 2, loaded.info.context_length // 2)
    blocks = [ids[start : start + length] for start in range(0, len(ids) - length + 1, length)]
    if len(blocks) < 2:
        raise InvalidRequestError(
            f"the text has {len(ids):,} tokens of this model and at least {2 * length:,} are needed: take a longer one",
            "text",
        )
    return blocks


def _predict(
    loaded: LoadedModel, blocks: Sequence[list[int]], on_fraction: OnFraction
) -> Iterator[tuple[list[int], Rows]]:
    """For each block the tokens that were predicted, and the log-probabilities that were given: each token follows on
    those before it in its block, and the first of all has nothing to follow on unless the tokenizer begins texts with
    a mark. `on_fraction` is called before and after each block is predicted, and when all were compared."""
    prefix = [token_id for token_id in loaded.tokenizer("")["input_ids"] if token_id not in loaded.end_ids]
    for index, block in enumerate(blocks):
        on_fraction(index / len(blocks))
        targets = block if prefix else block[1:]
        rows = _log_probs(loaded, [*prefix, *block], len(targets))
        if not np.isfinite(rows[0, targets[0]]):
            raise WeightsError(
                f"{loaded.name} gives probabilities that are not numbers in {loaded.info.dtype}: choose another dtype"
            )
        on_fraction((index + 0.9) / len(blocks))  # comparing takes the rest
        yield targets, rows
    on_fraction(1.0)


@torch.inference_mode()
def _log_probs(loaded: LoadedModel, ids: list[int], num_targets: int) -> Rows:
    """Log-probabilities of the last `num_targets` ids, each given those before it: (num_targets, vocabulary)."""
    inputs = torch.tensor([ids[:-1]], device=loaded.cache_shape.device)
    with attention.used(loaded.model, attention.REFERENCE):
        logits = loaded.model(input_ids=inputs, use_cache=False, logits_to_keep=num_targets).logits[0]
    rows: Rows = torch.log_softmax(logits.float(), dim=-1).cpu().numpy()
    return rows
