"""Does the engine show a model images as the model itself does?

Run once after loading. A picture and a word go through the path of a request (processor, vision tower, features in
chunks with a border within the picture or at its ends, positions) and through the model's own forward pass. Where the
logits differ, or a step is not possible, the model serves text alone and its notes say why.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from PIL import Image

from engine.errors import ConsoleError
from engine.inference import attention
from engine.inference.forward import Part
from engine.inference.image_prompt import ImagePrompt
from engine.inference.parity import distance_between, forward_of, tolerance_of
from engine.inference.prompt import render_turns
from engine.inference.vision import Vision
from engine.models.failures import first_line
from engine.models.loader import LoadedModel
from engine.models.spec import Modality

_SIDE = 64
_CONVERSATION = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Hello"}]}]
_MISFITS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    ConsoleError,
    ImportError,
    LookupError,
    NotImplementedError,
    RuntimeError,
    TypeError,
    ValueError,
)


def serve_images(loaded: LoadedModel) -> LoadedModel:
    """`loaded`, which serves images too if it takes some and they come out as they should; else with a note why not."""
    if Modality.IMAGES not in loaded.info.modalities:
        return loaded
    why_not = loaded.why_no_images or _why_not(loaded)
    if why_not is None:
        return replace(loaded, info=replace(loaded.info, served=(*loaded.info.served, Modality.IMAGES)))
    note = f"This model takes images and they are not served: {why_not}. Ask it with text."
    info = replace(loaded.info, notes=(note, *loaded.info.notes))
    return replace(loaded, info=info, vision=None, why_no_images=why_not)


def _why_not(loaded: LoadedModel) -> str | None:
    try:
        distance = check_image_parity(loaded)
    except _MISFITS as error:
        return first_line(error).rstrip(".:")
    allowed = tolerance_of(loaded)
    if distance <= allowed:
        return None
    return f"its logits differ from the model's own by {distance:.2g}, at most {allowed:g} is allowed"


@torch.inference_mode()
def check_image_parity(loaded: LoadedModel) -> float:
    """Relative distance of the logits of a prompt with a picture, as `check_parity` has it.

    Raises:
        Exception: what transformers raises where the model cannot be asked this way.
    """
    vision = loaded.vision
    if vision is None:
        raise ValueError("there is no image processor")
    text = render_turns(loaded.tokenizer, _CONVERSATION)
    picture = _picture()
    images = vision.read(text, [picture])
    if not images.num_image_tokens:
        raise ValueError("its chat template has no place for an image")
    with attention.used(loaded.model, attention.REFERENCE):
        reference = _own_logits(loaded, vision, text, picture)
    return distance_between(_our_logits(loaded, vision, images), reference)


def _picture() -> Image.Image:
    noise = np.random.default_rng(0).integers(0, 256, (_SIDE, 2 * _SIDE, 3), dtype=np.uint8)
    return Image.fromarray(noise)


def _own_logits(loaded: LoadedModel, vision: Vision, text: str, picture: Image.Image) -> torch.Tensor:
    device = loaded.cache_shape.device
    given: dict[str, Any] = {
        key: (value.to(vision.dtype) if value.is_floating_point() else value).to(device)
        for key, value in vision.process(text, [picture]).items()
    }
    logits: torch.Tensor = loaded.model(**given, use_cache=False).logits[0]
    return logits


def _our_logits(loaded: LoadedModel, vision: Vision, images: ImagePrompt) -> torch.Tensor:
    ids = images.token_ids
    while (pixels := images.next_pixels) is not None:
        images.put(vision.encode(pixels, loaded.cache_shape.device))
    borders = sorted({0, *images.cuts, len(ids) - 1, len(ids)})
    with attention.kept(loaded.model):
        forward = forward_of(loaded)
        cache = forward.new_cache(len(ids), len(ids))
        chunks = [Part(cache, ids[start:stop], start, images, stop - start) for start, stop in pairwise(borders)]
        return torch.cat([forward.logits([chunk]) for chunk in chunks])
