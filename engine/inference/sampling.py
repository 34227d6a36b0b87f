"""The next token from one row of logits: pure functions of the row, the parameters and one uniform number.

The uniform number comes from the request's own generator (one draw per sampled token), so what a request draws
does not depend on who shares its batch. Where the logits' last bits do (in bfloat16, on a GPU, or without packed
linear layers: matrix products of different batch sizes round differently), a draw that close to a border can differ.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import torch

from engine.inference.request import SamplingParams
from engine.inference.upload import upload

# Enough for nearly every nucleus; the full sort behind it costs ten times as much.
_NUCLEUS_CANDIDATES = 512
# A smaller divisor would be zero in float32, and 0 / 0 is no probability.
LEAST_TEMPERATURE = float(torch.finfo(torch.float32).tiny)
# Why a row has no token.
NOT_FINITE = "the model produced logits that are not finite"
NOT_ALLOWED = "the model gives no token a chance that the answer's grammar allows"


@dataclass(frozen=True, slots=True)
class Sampled:
    """A token, and when asked for its log-probability and the likeliest alternatives as (id, log-probability)."""

    token_id: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()


def sample(
    logits: torch.Tensor,
    params: SamplingParams,
    prompt_ids: torch.Tensor,
    output_counts: Counter[int],
    uniform: float,
    allowed: torch.Tensor | None = None,
) -> Sampled:
    """Choose a token.

    Args:
        logits: the model's row, shape (vocab,), any float dtype; not changed.
        prompt_ids: distinct token ids of the prompt, for the repetition penalty.
        output_counts: how often each id was produced so far.
        uniform: in [0, 1), used only when temperature > 0.
        allowed: the tokens that may be chosen, shape (vocab,), bool, on any device; None for all. What else the
            parameters ask for is done among these.

    Raises:
        FloatingPointError: the row holds NaN or nothing finite, so no token is right; or nothing finite is allowed.
    """
    raw = logits.float()
    if not bool(torch.isfinite(raw.max())):
        raise FloatingPointError(NOT_FINITE)
    row = shape_row(raw, params, prompt_ids, output_counts, allowed)
    if allowed is not None and not bool(torch.isfinite(row.max())):
        raise FloatingPointError(NOT_ALLOWED)
    token_id = int(row.argmax()) if params.temperature == 0 else draw(row, params, uniform)
    if params.top_logprobs is None:
        return Sampled(token_id)
    logprobs = torch.log_softmax(raw, dim=-1)
    top = logprobs.topk(params.top_logprobs)
    pairs = tuple(zip(top.indices.tolist(), top.values.tolist(), strict=True))
    return Sampled(token_id, float(logprobs[token_id]), pairs)


def shape_row(
    row: torch.Tensor,
    params: SamplingParams,
    prompt_ids: torch.Tensor,
    output_counts: Counter[int],
    allowed: torch.Tensor | None,
) -> torch.Tensor:
    """Penalties, bias, and -inf for what is not allowed; the arguments are those of `sample`. Returns `row` itself when
    there is nothing to do."""
    row = apply_bias(apply_penalties(row, params, prompt_ids, output_counts), params)
    return row if allowed is None else torch.where(allowed.to(row.device), row, -torch.inf)


def apply_penalties(
    row: torch.Tensor, params: SamplingParams, prompt_ids: torch.Tensor, output_counts: Counter[int]
) -> torch.Tensor:
    """Repetition penalty as in CTRL (arXiv:1909.05858) over prompt and answer; presence and frequency penalty as
    OpenAI defines them, over the answer. Returns `row` itself when there is nothing to do."""
    if not params.has_penalties:
        return row
    ids = torch.tensor(list(output_counts), dtype=torch.long, device=row.device)
    if params.repetition_penalty != 1.0:
        seen = torch.cat([prompt_ids, ids]).unique()
        values = row[seen]
        penalty = params.repetition_penalty
        row = row.index_copy(0, seen, torch.where(values > 0, values / penalty, values * penalty))
    if len(ids) and (params.presence_penalty or params.frequency_penalty):
        counts = torch.tensor(list(output_counts.values()), dtype=row.dtype, device=row.device)
        row = row.index_add(0, ids, -(params.presence_penalty + params.frequency_penalty * counts))
    return row


def apply_bias(row: torch.Tensor, params: SamplingParams) -> torch.Tensor:
    """Add the asked-for bias to its tokens' logits."""
    if not params.logit_bias:
        return row
    ids = upload(torch.tensor(list(params.logit_bias), dtype=torch.long), row.device)
    bias = upload(torch.tensor(list(params.logit_bias.values()), dtype=row.dtype), row.device)
    return row.index_add(0, ids, bias)


def draw(row: torch.Tensor, params: SamplingParams, uniform: float) -> int:
    """Draw from the filtered distribution by inverting its cumulative sum in id order (in double precision, so
    that the sum over a large vocabulary keeps the small probabilities)."""
    temperature = max(params.temperature, LEAST_TEMPERATURE)
    probabilities = torch.softmax((row - row.max()) / temperature, dim=-1)
    kept = keep_mask(probabilities, params)
    if kept is not None:
        probabilities = torch.where(kept, probabilities, 0.0)
    cumulative = probabilities.double().cumsum(dim=-1)
    target = uniform * cumulative[-1]
    return int(torch.searchsorted(cumulative, target, right=True).clamp(max=len(row) - 1))


def keep_mask(probabilities: torch.Tensor, params: SamplingParams) -> torch.Tensor | None:
    """Which tokens survive top-k, top-p and min-p; None when all do. The likeliest token always survives, and
    tokens as likely as the last survivor survive with it."""
    floor = probabilities.new_zeros(())
    if 0 < params.top_k < len(probabilities):
        floor = probabilities.topk(params.top_k).values[-1]
    if params.top_p < 1.0:
        floor = torch.maximum(floor, _nucleus_floor(probabilities, floor, params.top_p))
    if params.min_p > 0.0:
        floor = torch.maximum(floor, params.min_p * probabilities.max())
    return probabilities >= floor if float(floor) > 0 else None


def _nucleus_floor(probabilities: torch.Tensor, floor: torch.Tensor, top_p: float) -> torch.Tensor:
    """Probability of the last token of the smallest set whose share of what passed `floor` reaches `top_p`."""
    total = probabilities[probabilities >= floor].sum()
    size = min(_NUCLEUS_CANDIDATES, len(probabilities))
    ordered = probabilities.topk(size).values
    if float(ordered.sum()) < top_p * float(total):
        ordered = probabilities.sort(descending=True).values
    reached = ordered.cumsum(dim=-1) >= top_p * total
    first = int(reached.to(torch.uint8).argmax()) if bool(reached.any()) else len(ordered) - 1
    return ordered[first]
