"""The next tokens of a whole batch at once, on the device that holds the logits: what `sampling.sample` chooses row by
row, in a handful of kernels and one wait for the device.

What a request asks for beyond temperature, top-k, top-p and min-p (penalties, bias, a grammar) is done to its row
alone before.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from engine.inference.request import SamplingParams
from engine.inference.sampling import LEAST_TEMPERATURE, Sampled, sample, shape_row

# Of a float32 that is at most 1.0, the bits that may be set.
_BITS_UP_TO_ONE = 30


@dataclass(frozen=True, slots=True)
class Wish:
    """What one row's request asks for; the fields are those of `sampling.sample`."""

    params: SamplingParams
    prompt_ids: torch.Tensor
    output_counts: Counter[int]
    uniform: float
    allowed: torch.Tensor | None = None

    @property
    def is_plain(self) -> bool:
        """Whether its row is used as the model gave it."""
        params = self.params
        has_penalty = params.repetition_penalty != 1.0 or params.presence_penalty or params.frequency_penalty
        return not (has_penalty or params.logit_bias or self.allowed is not None)

    def shape(self, row: torch.Tensor) -> torch.Tensor:
        """`sampling.shape_row` with it."""
        return shape_row(row, self.params, self.prompt_ids, self.output_counts, self.allowed)

    def sample(self, row: torch.Tensor) -> Sampled:
        """`sampling.sample` with it."""
        return sample(row, self.params, self.prompt_ids, self.output_counts, self.uniform, self.allowed)


def sample_batch(logits: torch.Tensor, wishes: Sequence[Wish]) -> list[Sampled | FloatingPointError]:
    """Choose a token for each row of `logits`, (rows, vocab), any float dtype, not changed. Where `sample` would raise,
    the error is in its place."""
    raw = logits.float()
    rows = raw
    if not all(wish.is_plain for wish in wishes):
        rows = torch.stack([row if wish.is_plain else wish.shape(row) for row, wish in zip(raw, wishes, strict=True)])
    tokens, is_fine = _choose(rows, wishes)
    logprobs, tops = _logprobs(raw, tokens, wishes)
    ids, fine, values = torch.stack((tokens.double(), is_fine.double(), logprobs.double())).tolist()
    return [
        Sampled(int(ids[index]), None if wish.params.top_logprobs is None else values[index], tops.get(index, ()))
        if fine[index]
        else _why_not(raw[index], wish)
        for index, wish in enumerate(wishes)
    ]


def _why_not(row: torch.Tensor, wish: Wish) -> FloatingPointError:
    try:
        wish.sample(row)
    except FloatingPointError as error:
        return error
    raise RuntimeError("a row that is not finite in its batch is finite by itself")


def _logprobs(
    raw: torch.Tensor, tokens: torch.Tensor, wishes: Sequence[Wish]
) -> tuple[torch.Tensor, dict[int, tuple[tuple[int, float], ...]]]:
    """Log-probabilities of the chosen tokens, (rows,), zeros where nobody asked; and of rows that asked for some, the
    likeliest tokens with theirs."""
    asked = {index: wish.params.top_logprobs for index, wish in enumerate(wishes) if wish.params.top_logprobs}
    if all(wish.params.top_logprobs is None for wish in wishes):
        return torch.zeros(len(raw), device=raw.device), {}
    total = raw.logsumexp(-1)
    logprobs = raw.gather(1, tokens[:, None])[:, 0] - total
    if not asked:
        return logprobs, {}
    rows = torch.tensor(list(asked), device=raw.device)
    top = raw[rows].topk(max(asked.values()))
    ids, values = top.indices.tolist(), (top.values - total[rows, None]).tolist()
    pairs = zip(asked.items(), ids, values, strict=True)
    return logprobs, {index: tuple(zip(row[:num], held[:num], strict=True)) for (index, num), row, held in pairs}


def _choose(rows: torch.Tensor, wishes: Sequence[Wish]) -> tuple[torch.Tensor, torch.Tensor]:
    """A token for each row, and whether it has a finite likeliest one, (rows,) each."""
    largest, tokens = rows.max(-1)
    drawing = [index for index, wish in enumerate(wishes) if wish.params.temperature > 0]
    if drawing:
        places = torch.tensor(drawing, device=rows.device)
        drawn = _draw(rows[places], [wishes[index] for index in drawing])
        tokens = tokens.index_copy(0, places, drawn)
    return tokens, torch.isfinite(largest)


def _draw(rows: torch.Tensor, wishes: Sequence[Wish]) -> torch.Tensor:
    """`sampling.draw` of each row."""
    params = [wish.params for wish in wishes]
    numbers = torch.tensor(
        [
            [max(one.temperature, LEAST_TEMPERATURE), one.top_p, one.min_p, one.top_k, wish.uniform]
            for one, wish in zip(params, wishes, strict=True)
        ],
        dtype=torch.float64,
    ).to(rows.device)
    temperature, top_p, min_p, top_k = (column[:, None] for column in numbers[:, :4].float().T)
    probabilities = torch.softmax((rows - rows.amax(-1, keepdim=True)) / temperature, dim=-1)
    floor = torch.zeros_like(top_p)
    if any(0 < one.top_k < rows.shape[1] for one in params):
        is_limited = (top_k > 0) & (top_k < rows.shape[1])
        floor = torch.where(is_limited, _largest_floor(probabilities, torch.ones_like(probabilities), top_k), floor)
    if any(one.top_p < 1.0 for one in params):
        passed = torch.where(probabilities >= floor, probabilities, 0.0)
        nucleus = _largest_floor(passed, passed, top_p * passed.sum(-1, keepdim=True))
        floor = torch.where(top_p < 1.0, torch.maximum(floor, nucleus), floor)
    floor = torch.maximum(floor, min_p * probabilities.amax(-1, keepdim=True))
    cumulative = torch.where(probabilities >= floor, probabilities, 0.0).double().cumsum(-1)
    target = numbers[:, 4:] * cumulative[:, -1:]
    return torch.searchsorted(cumulative, target, right=True)[:, 0].clamp(max=rows.shape[1] - 1)


def _largest_floor(probabilities: torch.Tensor, weights: torch.Tensor, needed: torch.Tensor) -> torch.Tensor:
    """The largest float such that the `weights` of all that are at least so probable add up to `needed`, (rows, 1).

    Found bit by bit, as positive floats are ordered like the integers of the same bits: thirty passes over the rows,
    whatever the distribution, where sorting a vocabulary takes several times as long.
    """
    bits = torch.zeros_like(needed, dtype=torch.int32)
    for bit in range(_BITS_UP_TO_ONE - 1, -1, -1):
        trial = bits | (1 << bit)
        reached = torch.where(probabilities >= trial.view(torch.float32), weights, 0.0).sum(-1, keepdim=True)
        bits = torch.where(reached >= needed, trial, bits)
    return bits.view(torch.float32)
