"""The next tokens of a whole batch at once, on the device that holds the logits: what `sampling.sample` chooses row by
row, in a handful of kernels. The tokens are on the device at once, to be run; what the host is told is waited for only
when it is read.

What a request asks for beyond temperature, top-k, top-p and min-p (penalties, bias, a grammar) is done to its row
alone before.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from engine.inference.request import SamplingParams
from engine.inference.sampling import LEAST_TEMPERATURE, NOT_ALLOWED, NOT_FINITE, Sampled, shape_row
from engine.inference.upload import upload

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
        return not (self.params.has_penalties or self.params.logit_bias or self.allowed is not None)

    def shape(self, row: torch.Tensor) -> torch.Tensor:
        """`sampling.shape_row` with it."""
        return shape_row(row, self.params, self.prompt_ids, self.output_counts, self.allowed)


class Told:
    """Numbers of the device on their way to the host."""

    def __init__(self, numbers: torch.Tensor) -> None:
        self._numbers, self._event = numbers, None
        if numbers.is_cuda:
            self._numbers = torch.empty_like(numbers, device="cpu", pin_memory=True)
            self._numbers.copy_(numbers, non_blocking=True)
            self._event = torch.cuda.Event()
            self._event.record()

    def wait(self) -> list[list[float]]:
        """Them, once they are here."""
        if self._event is not None:
            self._event.synchronize()
        rows: list[list[float]] = self._numbers.tolist()
        return rows


@dataclass(frozen=True, slots=True)
class _Tops:
    """The likeliest tokens of the rows that asked for some, by their index, with how many they asked for."""

    asked: dict[int, int]
    ids: Told
    values: Told

    def read(self) -> dict[int, tuple[tuple[int, float], ...]]:
        found = zip(self.asked.items(), self.ids.wait(), self.values.wait(), strict=True)
        return {
            index: tuple((int(token), value) for token, value in zip(ids[:num], values[:num], strict=True))
            for (index, num), ids, values in found
        }


@dataclass(frozen=True, slots=True)
class BatchChoice:
    """A token for each row.

    Attributes:
        tokens: on the device, (rows,), int64. Whatever stands where `read` has an error is no token.
    """

    tokens: torch.Tensor
    _wants_logprob: list[bool]
    _numbers: Told
    _tops: _Tops | None

    def read(self) -> list[Sampled | FloatingPointError]:
        """What was chosen, once the device has; where `sampling.sample` would raise, the error is in its place."""
        ids, are_finite, are_allowed, logprobs = self._numbers.wait()
        tops = {} if self._tops is None else self._tops.read()
        return [
            FloatingPointError(NOT_ALLOWED if are_finite[index] else NOT_FINITE)
            if not (are_finite[index] and are_allowed[index])
            else Sampled(int(ids[index]), logprobs[index] if wants else None, tops.get(index, ()))
            for index, wants in enumerate(self._wants_logprob)
        ]


def sample_batch(logits: torch.Tensor, wishes: Sequence[Wish]) -> BatchChoice:
    """Choose a token for each row of `logits`, (rows, vocab), any float dtype, not changed, and not read any more once
    the device has done what was asked of it here."""
    are_plain = all(wish.is_plain for wish in wishes)
    is_greedy = all(wish.params.temperature == 0 for wish in wishes)
    asked = {index: wish.params.top_logprobs for index, wish in enumerate(wishes) if wish.params.top_logprobs}
    wants_logprob = [wish.params.top_logprobs is not None for wish in wishes]
    # The largest of a row is the same in its own dtype.
    raw = logits if are_plain and is_greedy and not any(wants_logprob) else logits.float()
    rows = raw
    if not are_plain:
        rows = torch.stack([row if wish.is_plain else wish.shape(row) for row, wish in zip(raw, wishes, strict=True)])
    tokens, are_allowed = _choose(rows, wishes)
    are_finite = are_allowed if are_plain else torch.isfinite(raw.amax(-1))
    logprobs, tops = torch.zeros_like(tokens), None
    if any(wants_logprob):
        total = raw.logsumexp(-1)
        logprobs = raw.gather(1, tokens[:, None])[:, 0] - total
        if asked:
            indices = upload(torch.tensor(list(asked)), raw.device)
            top = raw[indices].topk(max(asked.values()))
            tops = _Tops(asked, Told(top.indices), Told(top.values - total[indices, None]))
    numbers = torch.stack([each.double() for each in (tokens, are_finite, are_allowed, logprobs)])
    return BatchChoice(tokens, wants_logprob, Told(numbers), tops)


def _choose(rows: torch.Tensor, wishes: Sequence[Wish]) -> tuple[torch.Tensor, torch.Tensor]:
    """A token for each row, and whether it has a finite likeliest one, (rows,) each."""
    largest, tokens = rows.max(-1)
    drawing = [index for index, wish in enumerate(wishes) if wish.params.temperature > 0]
    if drawing:
        places = upload(torch.tensor(drawing), rows.device)
        drawn = _draw(rows[places], [wishes[index] for index in drawing])
        tokens = tokens.index_copy(0, places, drawn)
    return tokens, torch.isfinite(largest)


def _draw(rows: torch.Tensor, wishes: Sequence[Wish]) -> torch.Tensor:
    """`sampling.draw` of each row."""
    params = [wish.params for wish in wishes]
    asked = [
        [max(one.temperature, LEAST_TEMPERATURE), one.top_p, one.min_p, one.top_k, wish.uniform]
        for one, wish in zip(params, wishes, strict=True)
    ]
    numbers = upload(torch.tensor(asked, dtype=torch.float64), rows.device)
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
