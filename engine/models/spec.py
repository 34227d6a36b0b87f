"""Which model to serve and how, as asked for, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, get_args

from engine.errors import WeightsError
from engine.weights.sources import SAMPLE

Device = Literal["auto", "cpu", "cuda"]
DType = Literal["auto", "float32", "bfloat16", "float16"]
Attention = Literal["auto", "sdpa", "eager"]
AttentionKernel = Literal["sdpa", "eager"]


class Modality(StrEnum):
    """What a model takes or gives."""

    TEXT = "text"
    IMAGES = "images"


class Passes(StrEnum):
    """How the tokens of a step are run: all in one forward pass; each request's in its own; or so, and a prompt not in
    chunks but whole, for a model that goes on from its state by single tokens only."""

    PACKED = "packed"
    SEPARATE = "separate"
    WHOLE_PROMPTS = "whole prompts"


class Scheme(StrEnum):
    """How weights, and in some schemes activations, are stored and multiplied."""

    INT8_WEIGHT = "int8-weight"
    INT8_DYNAMIC = "int8-dynamic"
    INT8_STATIC = "int8-static"
    INT4_WEIGHT = "int4-weight"
    FP8_WEIGHT = "fp8-weight"
    FP8_DYNAMIC = "fp8-dynamic"
    BNB_INT8 = "bnb-int8"
    BNB_NF4 = "bnb-nf4"


class Granularity(StrEnum):
    """What shares one scale: the whole tensor, an output channel, or a group of inputs of one channel."""

    TENSOR = "tensor"
    CHANNEL = "channel"
    GROUP = "group"


@dataclass(frozen=True, slots=True)
class Quantization:
    """How to quantize while loading. What suits a scheme and a device is `schemes.default_quantization`'s to say.

    Attributes:
        group_size: inputs that share a scale where the granularity is `group`; None takes the scheme's default.
        is_symmetric: without a zero point; False is affine.
        keep: layers that stay in high precision, by the end of their name; none unless they are named.
        prompts: texts that INT8_STATIC measures activations on; none takes a few bundled sentences.
    """

    scheme: Scheme
    granularity: Granularity = Granularity.CHANNEL
    group_size: int | None = None
    is_symmetric: bool = True
    keep: tuple[str, ...] = ()
    prompts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """What to load.

    Attributes:
        source: `sample`, a folder with safetensors, or a .gguf file.
        name: what clients call it; None takes the source's own name.
        dtype: `auto` is float32 on a CPU and bfloat16 on a GPU.
        quantization: None keeps the weights as their dtype says.
        context_length: tokens that one request may hold; None takes the model's own bound.
        max_running: requests in one batch; None takes the setting.
        attention: how attention is computed: fused (`sdpa`, which `auto` takes), or step by step in float32 (`eager`),
            slower, to compare with.
    """

    source: str = SAMPLE
    name: str | None = None
    device: Device = "auto"
    dtype: DType = "auto"
    quantization: Quantization | None = None
    context_length: int | None = None
    max_running: int | None = None
    attention: Attention = "auto"


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What was loaded, for pages and the API.

    Attributes:
        num_parameters, vocab_size: of the model before quantization.
        quantization: how its weights are held; None where they are as their dtype says.
        read_bytes_per_s: how fast the weight files were read and put in place; None for weights that came otherwise.
        notes: what it does not do, a sentence each (no chat template, images).
        attention: how its attention is computed, `auto` resolved.
        modalities: what the model takes by its architecture.
        served: which of them this engine serves; images once they were compared with the model's own reading of one.
    """

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
    quantization: Quantization | None = None
    read_bytes_per_s: float | None = None
    notes: tuple[str, ...] = ()
    attention: AttentionKernel = "sdpa"
    modalities: tuple[Modality, ...] = (Modality.TEXT,)
    served: tuple[Modality, ...] = (Modality.TEXT,)


def resolve_attention(asked: Attention) -> AttentionKernel:
    """How attention will be computed, `auto` resolved.

    Raises:
        WeightsError: the engine does not have that one.
    """
    if asked not in get_args(Attention):
        *others, last = get_args(Attention)
        raise WeightsError(f"attention is {asked!r}, which this engine has not: choose {', '.join(others)} or {last}")
    return "sdpa" if asked == "auto" else asked
