"""Whether a model's steps can be fused, here."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import torch

from engine.inference.fused.stored import stored, why_not_stored
from engine.inference.llama_shaped import why_not_llama_shaped

_JOINED = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))


def why_not_fused(model: Any, dtype: torch.dtype) -> str | None:
    """Why they cannot; None where they can."""
    if find_spec("triton") is None:
        return "torch came without Triton"
    if (why := why_not_llama_shaped(model)) is not None:
        return why
    for name, module in model.named_modules():
        if hasattr(module, "in_features") and (why := why_not_stored(module, dtype)):
            return f"{name} {why}"
    for name, module in model.named_modules():
        for names in _JOINED:
            parts = [getattr(module, part) for part in names if hasattr(module, part)]
            if len({stored(part)[0].dtype for part in parts}) > 1:
                return f"the weights of {name}'s {', '.join(names)} are of several kinds"
    return None
