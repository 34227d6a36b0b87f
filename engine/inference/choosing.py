"""The next token of each request that awaits one, or why it has none."""

from __future__ import annotations

from collections.abc import Sequence as Row
from dataclasses import dataclass

import torch

from engine.inference.batch_sampling import BatchChoice, Wish, sample_batch
from engine.inference.sampling import Sampled, sample
from engine.inference.sequence import Sequence
from engine.inference.structured import GrammarError
from engine.inference.upload import upload


@dataclass(frozen=True, slots=True)
class Choice:
    """What was chosen for some rows of logits, and where a request has none, the sentence that ends it."""

    _found: list[Sampled | str | None]
    _batch: BatchChoice | None = None

    def on_device(self) -> torch.Tensor | None:
        """The tokens of all rows, (rows,), int64, where they are on the device and there is one for each."""
        is_whole = self._batch is not None and all(found is None for found in self._found)
        return self._batch.tokens if self._batch is not None and is_whole else None

    def read(self) -> list[Sampled | str]:
        """All of it, once the device has computed it."""
        chosen = iter(() if self._batch is None else self._batch.read())
        return [_in_words(next(chosen)) if found is None else found for found in self._found]


def choose(sequences: Row[Sequence], logits: torch.Tensor, *, is_batched: bool) -> Choice:
    """For each sequence a token from its row of `logits`, (number of them, vocab).

    Row by row, where a row's bits so do not depend on the others; or all at once on the device, which is waited for
    when the choice is read.
    """
    wishes = [_wish(sequence, logits.device) for sequence in sequences]
    if not is_batched:
        rows = zip(logits, wishes, strict=True)
        return Choice([wish if isinstance(wish, str) else _sample(row, wish) for row, wish in rows])
    fine = [index for index, wish in enumerate(wishes) if not isinstance(wish, str)]
    found: list[Sampled | str | None] = [wish if isinstance(wish, str) else None for wish in wishes]
    if not fine:
        return Choice(found)
    rows_of_fine = logits if len(fine) == len(wishes) else logits[upload(torch.tensor(fine), logits.device)]
    return Choice(found, sample_batch(rows_of_fine, [wish for wish in wishes if not isinstance(wish, str)]))


def _wish(sequence: Sequence, device: torch.device) -> Wish | str:
    params = sequence.request.sampling
    uniform = sequence.uniform() if params.temperature > 0 else 0.0
    try:
        allowed = sequence.allowed()
    except GrammarError as error:
        return f"the answer's grammar is too complex to follow: {error}"
    return Wish(params, sequence.prompt_set(device), sequence.output_counts, uniform, allowed)


def _sample(row: torch.Tensor, wish: Wish) -> Sampled | str:
    try:
        return sample(row, wish.params, wish.prompt_ids, wish.output_counts, wish.uniform, wish.allowed)
    except FloatingPointError as error:
        return _in_words(error)


def _in_words(found: Sampled | FloatingPointError) -> Sampled | str:
    return f"{found}: try float32, or load the model again" if isinstance(found, FloatingPointError) else found
