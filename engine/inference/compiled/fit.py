"""Whether steps of a model can be compiled code, here."""

from __future__ import annotations

from typing import Any

import torch

from engine.inference.attention import CacheShape
from engine.inference.compiled.layout import why_not_laid_out
from engine.inference.compiled.library import library

_DTYPES = (torch.float32, torch.bfloat16)


def why_not_compiled(model: Any, shape: CacheShape) -> str | None:
    """Why they cannot; None where they can. The library may be compiled first, which takes seconds once."""
    if shape.device.type != "cpu":
        return f"it is on {shape.device}"
    if shape.dtype not in _DTYPES:
        return f"it computes in {str(shape.dtype).removeprefix('torch.')}"
    if shape.kernel == "eager":
        return "the eager attention kernel is asked for"
    return why_not_laid_out(model) or library().why_not
