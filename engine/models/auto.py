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
    """The class whose `from_pretrained` loads a model of this config. With `may_run_code` one that the model's own code
    describes is taken as a causal language model.

    Raises:
        WeightsError: transformers knows no model of it that writes text.
    """
    if type(config) in MODEL_FOR_CAUSAL_LM_MAPPING:
        return AutoModelForCausalLM
    if type(config) in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:
        return AutoModelForImageTextToText
    if may_run_code and "AutoModelForCausalLM" in (getattr(config, "auto_map", None) or {}):
        return AutoModelForCausalLM
    raise WeightsError(
        f"models of type {config.model_type} do not write text: choose a causal language model, or one that takes "
        "images and text"
    )


def is_image_model(config: Any) -> bool:
    """Whether its images are more than this engine serves."""
    return type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING
