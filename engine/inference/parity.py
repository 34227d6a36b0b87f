"""Which way of running forward passes computes what the model itself does?

Asked once after loading, with a few random tokens in three chunks. Running all requests packed is what is wanted. An
architecture that this differs for, or is not possible with, has its requests run one by one with its own attention and
its own cache, where need be each prompt whole; and one whose logits differ even so is refused with a sentence instead
of answering nonsense.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from itertools import pairwise
from subprocess import SubprocessError

import torch
from transformers.cache_utils import get_layer_types_and_kwargs

from engine.errors import WeightsError
from engine.inference import attention
from engine.inference.compiled.fit import why_not_compiled
from engine.inference.compiled_forward import Compiled
from engine.inference.forward import Forward, Packed, Part
from engine.inference.fused.fit import why_not_fused
from engine.inference.pool import why_not_pooled
from engine.inference.pooled_forward import Pooled
from engine.inference.separate_forward import Separate
from engine.models.failures import first_line
from engine.models.loader import LoadedModel
from engine.models.spec import Passes, Scheme
from engine.scheduling.admission import Limits

_log = logging.getLogger(__name__)

_NUM_TOKENS = 12
_FIRST_CHUNK = 7
_BORDERS = (0, _FIRST_CHUNK, _NUM_TOKENS - 2, _NUM_TOKENS - 1, _NUM_TOKENS)
_TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 5e-2, torch.float16: 2e-2}
# Where activations are rounded to integers (or 4-bit layers to bfloat16), a last bit of attention moves a whole step.
_TOLERANCE_OF_SCHEME = {
    Scheme.INT4_WEIGHT: 5e-2,
    Scheme.INT8_DYNAMIC: 0.1,
    Scheme.INT8_STATIC: 0.1,
    Scheme.FP8_DYNAMIC: 0.1,
}
# How much farther a pass may be that rounds at other places than the model does: 32 random layers in bfloat16 are 0.049
# from their reference so, and 0.025 where only attention is another.
_ROOM_OF_FUSED = 2.0
# Layers that attention.py computes. Of others a few tokens do not show everything: where a chunk of attention ends, or
# when an index begins to choose.
_PACKED_LAYERS = frozenset({"full_attention", "sliding_attention", "dummy"})
# A counter or two beside the keys and values is no state.
_LEAST_STATE_BYTES = 1_024
# What a model says of a call that it was not made for.
_MISFITS = (AttributeError, LookupError, NotImplementedError, TypeError, ValueError, RuntimeError)


def forward_of(loaded: LoadedModel) -> Forward:
    """What runs the forward passes of `loaded`, as it was chosen."""
    return Packed(loaded) if loaded.passes is Passes.PACKED else Separate(loaded)


def forward_of_requests(loaded: LoadedModel, limits: Limits) -> Forward:
    """What runs requests: as `forward_of`, but on a GPU with one pool where FlashAttention can read it, and on a CPU as
    compiled code where it knows the layers, and the logits are right so too. Where not, its name says why."""
    if loaded.passes is not Passes.PACKED:
        return forward_of(loaded)
    if loaded.cache_shape.device.type == "cpu":
        return _compiled(loaded)
    why_not = why_not_pooled(loaded.cache_shape)
    if why_not is None and loaded.vision is not None and loaded.vision.looks_ahead:
        why_not = "the tokens of an image see each other both ways"
    if why_not is None:
        return _pooled(loaded, limits)
    return _slower(loaded, f"without FlashAttention, as {why_not}")


def _pooled(loaded: LoadedModel, limits: Limits) -> Forward:
    fused = _fused(loaded, limits)
    if not isinstance(fused, str):
        return fused
    pooled = Pooled(loaded, limits, f"no fused kernels, as {fused}")
    why_not = _compare(loaded, pooled)[1]
    return pooled if why_not is None else _slower(loaded, f"without FlashAttention, as {why_not}")


def _fused(loaded: LoadedModel, limits: Limits) -> Forward | str:
    """Or why not. Triton needs a C compiler, Python's headers, a folder to write to and a card it knows, and has an
    error of its own for each; torch without CUDA does not bring it along."""
    why_not = why_not_fused(loaded.model, loaded.cache_shape.dtype)
    if why_not is not None:
        return why_not
    try:
        from triton.errors import TritonError

        from engine.inference.fused_forward import Fused
    except ImportError as error:
        return f"Triton cannot be used: {first_line(error)}"
    try:
        fused = Fused(loaded, limits)
        return _compare(loaded, fused, _ROOM_OF_FUSED)[1] or fused
    except (TritonError, AssertionError, OSError, SubprocessError) as error:
        return f"Triton does not compile them: {first_line(error)}"


def _compiled(loaded: LoadedModel) -> Forward:
    why_not = why_not_compiled(loaded.model, loaded.cache_shape)
    if why_not is None:
        compiled = Compiled(loaded)
        why_not = _compare(loaded, compiled)[1]
        if why_not is None:
            return compiled
    return _slower(loaded, f"not compiled, as {why_not}")


def _slower(loaded: LoadedModel, why: str) -> Forward:
    _log.info("%s: its forward passes are %s", loaded.name, why)
    return Packed(loaded, why)


def choose_forward(loaded: LoadedModel) -> LoadedModel:
    """`loaded`, to be run packed if it comes out as it should; else one by one, with a note that says why.

    Raises:
        WeightsError: the logits differ in any way.
    """
    why_not_packed = _why_not_packed(loaded)
    if why_not_packed is None:
        return loaded
    for passes in (Passes.SEPARATE, Passes.WHOLE_PROMPTS):
        separate = replace(loaded, passes=passes)
        why_not = _compare(separate)[1]
        if why_not is None:
            return _noted(separate, why_not_packed)
    raise WeightsError(f"{loaded.info.architecture} cannot be served by this engine: {why_not}")


def _noted(separate: LoadedModel, why: str) -> LoadedModel:
    """With notes of what it means that requests are run one by one; it serves no images so."""
    note = f"Its requests are run one by one, not together: {why}. Beginnings of prompts are not shared."
    if separate.passes is Passes.WHOLE_PROMPTS:
        note += " Its prompts are run whole, which takes more memory than planned where they are long."
    notes = (*separate.info.notes, note, *_state_notes(separate))
    why_no_images = separate.why_no_images or "its requests are run one by one"
    return replace(separate, info=replace(separate.info, notes=notes), vision=None, why_no_images=why_no_images)


def check_parity(loaded: LoadedModel) -> float:
    """Relative distance of the logits, `|ours - reference| / |reference|`.

    Raises:
        WeightsError: it is above the tolerance of the dtype, or the model cannot run this way at all.
    """
    distance, why = _compare(loaded)
    if why is not None:
        raise WeightsError(f"{loaded.info.architecture} cannot be served by this engine: {why}")
    return distance


def _why_not_packed(loaded: LoadedModel) -> str | None:
    kinds = set(get_layer_types_and_kwargs(loaded.model.config.get_text_config(decoder=True))[0])
    if others := sorted(kinds - _PACKED_LAYERS):
        return f"it has layers of {' and '.join(others)}"
    return _compare(loaded)[1]


@torch.inference_mode()
def _compare(loaded: LoadedModel, forward: Forward | None = None, room: float = 1.0) -> tuple[float, str | None]:
    """The distance, and why it cannot be run this way (by `forward`, or what `forward_of` gives), it being more than
    `room` times what its dtype allows; the distance is infinite where it does not run at all."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, loaded.info.vocab_size, (_NUM_TOKENS,), generator=generator).tolist()
    try:
        with attention.used(loaded.model, attention.REFERENCE):
            whole = torch.tensor([ids], device=loaded.cache_shape.device)
            reference = loaded.model(input_ids=whole, use_cache=False).logits[0]
        with attention.kept(loaded.model):
            are_all_wanted = loaded.passes is not Passes.WHOLE_PROMPTS
            ours = _chunked_logits(forward or forward_of(loaded), ids, are_all_wanted=are_all_wanted)
        distance = distance_between(ours, reference[len(reference) - len(ours) :])
    except _MISFITS as error:
        return float("inf"), first_line(error).rstrip(".:") or type(error).__name__
    allowed = room * tolerance_of(loaded)
    if distance <= allowed:
        return distance, None
    return distance, f"its logits differ from the reference by {distance:.2g}, at most {allowed:g} is allowed"


def distance_between(ours: torch.Tensor, reference: torch.Tensor) -> float:
    """`|ours - reference| / |reference|`."""
    return float((ours.float() - reference.float()).norm() / reference.float().norm())


def tolerance_of(loaded: LoadedModel) -> float:
    """Both sides have the same quantized weights, so only what rounds between layers is allowed for."""
    allowed = _TOLERANCE[loaded.cache_shape.dtype]
    quantization = loaded.info.quantization
    return allowed if quantization is None else max(allowed, _TOLERANCE_OF_SCHEME.get(quantization.scheme, 0.0))


def _chunked_logits(forward: Forward, ids: list[int], *, are_all_wanted: bool) -> torch.Tensor:
    """Those of the first chunk only where all are wanted. Another request runs beside it, which must not be seen, but
    for the last token: that one is run as one is that is alone."""
    chunks, others = (_chunks(forward, tokens, are_all_wanted=are_all_wanted) for tokens in (ids, ids[::-1]))
    pairs = zip(chunks[:-1], others[:-1], strict=True)
    together = [forward.logits([chunk, other])[: chunk.num_logits].clone() for chunk, other in pairs]
    return torch.cat([*together, forward.logits(chunks[-1:])])


def _chunks(forward: Forward, ids: list[int], *, are_all_wanted: bool) -> list[Part]:
    cache = forward.new_cache(len(ids), len(ids))
    chunks = [Part(cache, ids[start:stop], start, num_logits=stop - start) for start, stop in pairwise(_BORDERS)]
    return chunks if are_all_wanted else [replace(chunks[0], num_logits=0), *chunks[1:]]


@torch.inference_mode()
def _state_notes(loaded: LoadedModel) -> tuple[str, ...]:
    """What a request holds however short it is: all that its cache has beyond what grows with a token."""
    with attention.used(loaded.model, attention.REFERENCE):
        forward = Separate(loaded)
        cache = forward.new_cache(_FIRST_CHUNK + 1, _FIRST_CHUNK + 1)
        forward.logits([Part(cache, range(_FIRST_CHUNK), 0)])
        first = cache.num_bytes
        forward.logits([Part(cache, [0], _FIRST_CHUNK)])
    constant = first - _FIRST_CHUNK * (cache.num_bytes - first)
    if constant < _LEAST_STATE_BYTES:
        return ()
    size = f"{constant / 1e6:.2g} MB"
    return (f"Each of its requests also holds {size} of states, which the memory for caches does not count.",)
