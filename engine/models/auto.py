"""Which of transformers' classes loads an architecture, and what of it is served."""

from __future__ import annotations

from typing import Any

from transformers import AutoModelForCausalLM, AutoModelForImageTextToText
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
)

from engine.errors import WeightsError


def auto_class(config: Any, may_run_code: bool = False) -> Any:
    """The class whose `from_pretrained` loads a model of this config: of one that is there with and without images,
    that which its weights were saved from. With `may_run_code` one that the model's own code describes is taken as a
    causal language model.

    Raises:
        WeightsError: transformers knows no model of it that writes text.
    """
    is_causal = type(config) in MODEL_FOR_CAUSAL_LM_MAPPING
    if is_image_model(config) and (not is_causal or _names_image_class(config)):
        return AutoModelForImageTextToText
    if is_causal:
        return AutoModelForCausalLM
    if may_run_code and "AutoModelForCausalLM" in (getattr(config, "auto_map", None) or {}):
        return AutoModelForCausalLM
    raise WeightsError(
        f"models of type {config.model_type} do not write text: choose a causal language model, or one that takes "
        "images and text"
    )


def is_image_model(config: Any) -> bool:
    """Whether a model with this config of its own takes images."""
    return type(config) in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING


def _names_image_class(config: Any) -> bool:
    taking_images: Any = MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING[type(config)]
    return taking_images.__name__ in (getattr(config, "architectures", None) or ())
