"""What eager attention takes beyond the fused kernel: it writes every score out. Pure arithmetic."""

from __future__ import annotations

from engine.models.architecture import Architecture
from engine.models.run_lines import Demand
from engine.models.spec import AttentionKernel
from engine.models.weight_lines import Kind, Line, Placement

# Scores and what the softmax makes of them, both float32, are there at once (engine/inference/attention.py).
_SCORE_BYTES = 4 + 4
_FLOAT32_BYTES = 4


def attention_lines(
    shape: Architecture, placement: Placement, demand: Demand, chunk_tokens: int, kernel: AttentionKernel
) -> tuple[Line, ...]:
    """What a model takes that is computed eagerly, as asked or since nothing else computes it. None for the fused
    kernel, whose mask is counted with the activations; nor where that too writes scores out,
    which is float32 with grouped heads on a GPU."""
    is_unfused = not placement.is_cpu and placement.dtype == "float32" and shape.key_width != shape.query_width
    is_eager = kernel == "eager" or shape.needs_eager
    if not is_eager or is_unfused or shape.num_heads is None:
        return ()
    rows, keys = min(chunk_tokens, demand.context_tokens), demand.context_tokens
    scores = shape.num_heads * rows * keys * _SCORE_BYTES
    how = f"{shape.num_heads} heads x {rows:,} rows x {keys:,} keys x {_SCORE_BYTES} B"
    if placement.dtype == "float32":
        return (Line(Kind.WORKING, "scores of eager attention", scores, how),)
    width = shape.key_width + shape.value_width
    copies = keys * width * _FLOAT32_BYTES
    how += f", and a layer's keys and values in float32 ({keys:,} x {width:,} x {_FLOAT32_BYTES} B)"
    return (Line(Kind.WORKING, "scores of eager attention", scores + copies, how),)
