"""Which model to serve and how, as asked for, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from engine.weights.sources import SAMPLE

Device = Literal["auto", "cpu", "cuda"]
DType = Literal["auto", "float32", "bfloat16", "float16"]


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """What to load.

    Attributes:
        source: `sample`, a folder with safetensors, or a .gguf file.
        name: what clients call it; None takes the source's own name.
        dtype: `auto` is float32 on a CPU and bfloat16 on a GPU.
    """

    source: str = SAMPLE
    name: str | None = None
    device: Device = "auto"
    dtype: DType = "auto"


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What was loaded, for pages and the API."""

    architecture: str
    num_parameters: int
    weights_bytes: int
    dtype: str
    device: str
    vocab_size: int
    context_length: int
    cache_bytes_per_token: int
    loaded_s: float
    revision: str
