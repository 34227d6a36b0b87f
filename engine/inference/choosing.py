"""The next token of each request that awaits one, or why it has none."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence as Row

import torch

from engine.inference.batch_sampling import Wish, sample_batch
from engine.inference.sampling import Sampled
from engine.inference.sequence import Sequence
from engine.inference.structured import GrammarError


def choose(sequences: Row[Sequence], logits: torch.Tensor) -> Iterator[Sampled | str]:
    """For each sequence, from its row of `logits` (number of them, vocab), a token, or the sentence that ends it.

    Row by row on a CPU, where a row's bits so do not depend on the others; all at once on a GPU, which is waited for
    once.
    """
    wishes = [_wish(sequence, logits.device) for sequence in sequences]
    if logits.device.type == "cpu":
        for row, wish in zip(logits, wishes, strict=True):
            yield wish if isinstance(wish, str) else _sample(row, wish)
        return
    fine = [index for index, wish in enumerate(wishes) if not isinstance(wish, str)]
    rows = logits if len(fine) == len(wishes) else logits[torch.tensor(fine, dtype=torch.long, device=logits.device)]
    chosen = iter(sample_batch(rows, [wish for wish in wishes if not isinstance(wish, str)]) if fine else ())
    for wish in wishes:
        found = wish if isinstance(wish, str) else next(chosen)
        yield _not_finite(found) if isinstance(found, FloatingPointError) else found


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
        return wish.sample(row)
    except FloatingPointError as error:
        return _not_finite(error)


def _not_finite(error: FloatingPointError) -> str:
    return f"{error}: try float32, or load the model again"
