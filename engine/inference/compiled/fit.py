"""Whether steps of a model can be compiled code, here."""

from __future__ import annotations

from typing import Any

from engine.inference.attention import CacheShape
from engine.inference.compiled import DTYPES
from engine.inference.compiled.layout import why_not_laid_out
from engine.inference.compiled.library import library


def why_not_compiled(model: Any, shape: CacheShape) -> str | None:
    """Why they cannot; None where they can. The library may be compiled first, which takes seconds once."""
    if shape.device.type != "cpu":
        return f"it is on {shape.device}"
    dtype = str(shape.dtype).removeprefix("torch.")
    if dtype not in DTYPES:
        return f"it computes in {dtype}"
    if shape.kernel == "eager":
        return "the eager attention kernel is asked for"
    return why_not_laid_out(model) or library().why_not
