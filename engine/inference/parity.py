"""Does the engine's packed attention compute what the model's own does?

Run once after loading, on a few random tokens in three chunks, so that an architecture whose attention does something
we do not know of is refused with a sentence instead of answering nonsense.
"""

from __future__ import annotations

import torch

from engine.errors import WeightsError
from engine.inference import attention
from engine.models.loader import LoadedModel

_NUM_TOKENS = 12
_FIRST_CHUNK = 7
_TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 5e-2, torch.float16: 2e-2}


@torch.inference_mode()
def check_parity(loaded: LoadedModel) -> float:
    """Relative distance of the logits, `|ours - reference| / |reference|`.

    Raises:
        WeightsError: it is above the tolerance of the dtype, or the model cannot run this way at all.
    """
    device = loaded.cache_shape.device
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, loaded.info.vocab_size, (1, _NUM_TOKENS), generator=generator).to(device)
    reference = loaded.model(input_ids=ids, use_cache=False).logits[0].float()
    try:
        ours = _packed_logits(loaded, ids).float()
    except (AttributeError, NotImplementedError, TypeError, ValueError, RuntimeError) as error:
        raise WeightsError(f"{loaded.info.architecture} cannot be served by this engine: {error}") from error
    distance = float((ours - reference).norm() / reference.norm())
    tolerance = _TOLERANCE[loaded.cache_shape.dtype]
    if not distance <= tolerance:
        raise WeightsError(
            f"{loaded.info.architecture} cannot be served by this engine: its logits differ from the reference by "
            f"{distance:.2g}, at most {tolerance:g} is allowed"
        )
    return distance


def _packed_logits(loaded: LoadedModel, ids: torch.Tensor) -> torch.Tensor:
    model = loaded.model
    before = model.config._attn_implementation
    model.set_attn_implementation(attention.NAME)
    try:
        cache = attention.SequenceCache(loaded.cache_shape, _NUM_TOKENS)
        pieces = []
        for start, stop in (
            (0, _FIRST_CHUNK),
            (_FIRST_CHUNK, _NUM_TOKENS - 1),
            (_NUM_TOKENS - 1, _NUM_TOKENS),
        ):
            span = attention.Span(cache, 0, stop - start, start)
            output = model(
                input_ids=ids[:, start:stop],
                position_ids=torch.arange(start, stop, device=ids.device)[None],
                use_cache=False,
                packed_batch=attention.PackedBatch([span]),
            )
            cache.length = stop
            pieces.append(output.logits[0])
        return torch.cat(pieces)
    finally:
        model.set_attn_implementation(before)
