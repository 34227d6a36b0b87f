"""Does the engine's packed attention compute what the model's own does?

Run once after loading, on a few random tokens in three chunks, so that an architecture whose attention does something
we do not know of is refused with a sentence instead of answering nonsense.
"""

from __future__ import annotations

import torch

from engine.errors import WeightsError
from engine.inference import attention
from engine.models.loader import LoadedModel
from engine.models.spec import Scheme

_NUM_TOKENS = 12
_FIRST_CHUNK = 7
_TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 5e-2, torch.float16: 2e-2}
# Where activations are rounded to integers (or 4-bit layers to bfloat16), a last bit of attention moves a whole step.
_TOLERANCE_OF_SCHEME = {
    Scheme.INT4_WEIGHT: 5e-2,
    Scheme.INT8_DYNAMIC: 0.1,
    Scheme.INT8_STATIC: 0.1,
    Scheme.FP8_DYNAMIC: 0.1,
}


@torch.inference_mode()
def check_parity(loaded: LoadedModel) -> float:
    """Relative distance of the logits, `|ours - reference| / |reference|`.

    Raises:
        WeightsError: it is above the tolerance of the dtype, or the model cannot run this way at all.
    """
    device = loaded.cache_shape.device
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, loaded.info.vocab_size, (1, _NUM_TOKENS), generator=generator).to(device)
    with attention.used(loaded.model, attention.REFERENCE):
        reference = loaded.model(input_ids=ids, use_cache=False).logits[0]
    try:
        ours = _packed_logits(loaded, ids)
    except (AttributeError, NotImplementedError, TypeError, ValueError, RuntimeError) as error:
        raise WeightsError(f"{loaded.info.architecture} cannot be served by this engine: {error}") from error
    distance, tolerance = distance_between(ours, reference), tolerance_of(loaded)
    if not distance <= tolerance:
        raise WeightsError(
            f"{loaded.info.architecture} cannot be served by this engine: its logits differ from the reference by "
            f"{distance:.2g}, at most {tolerance:g} is allowed"
        )
    return distance


def distance_between(ours: torch.Tensor, reference: torch.Tensor) -> float:
    """`|ours - reference| / |reference|`."""
    return float((ours.float() - reference.float()).norm() / reference.float().norm())


def tolerance_of(loaded: LoadedModel) -> float:
    """Both sides have the same quantized weights, so only what rounds between layers is allowed for."""
    allowed = _TOLERANCE[loaded.cache_shape.dtype]
    quantization = loaded.info.quantization
    return allowed if quantization is None else max(allowed, _TOLERANCE_OF_SCHEME.get(quantization.scheme, 0.0))


def _packed_logits(loaded: LoadedModel, ids: torch.Tensor) -> torch.Tensor:
    cache = attention.SequenceCache(loaded.cache_shape, _NUM_TOKENS)
    pieces = []
    with attention.used(loaded.model, attention.NAME):
        for start, stop in ((0, _FIRST_CHUNK), (_FIRST_CHUNK, _NUM_TOKENS - 1), (_NUM_TOKENS - 1, _NUM_TOKENS)):
            packed = attention.PackedInput()
            packed.add(cache, ids[0, start:stop].tolist(), start)
            pieces.append(loaded.model(**packed.arguments(loaded.model, ids.device)).logits[0])
    return torch.cat(pieces)
