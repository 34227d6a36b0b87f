"""Whether a model's steps can be fused, here."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import torch
from torch import nn

from engine.inference.llama_shaped import why_not_llama_shaped


def why_not_fused(model: Any, dtype: torch.dtype) -> str | None:
    """Why they cannot; None where they can."""
    if find_spec("triton") is None:
        return "torch came without Triton"
    if (why := why_not_llama_shaped(model)) is not None:
        return why
    for name, module in model.named_modules():
        if hasattr(module, "in_features") and (why := _why_not_linear(module, dtype)):
            return f"{name} {why}"
    return None


def _why_not_linear(module: Any, dtype: torch.dtype) -> str | None:
    if type(module) is not nn.Linear or type(module.weight.data) is not torch.Tensor:
        return f"is a {type(module).__name__} with weights of {type(module.weight.data).__name__}"
    if module.weight.dtype != dtype:
        return f"has weights of {str(module.weight.dtype).removeprefix('torch.')}"
    return None
