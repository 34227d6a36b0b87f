"""Which quantizations can run where, and the good default of each scheme. Without torch, so that pages may ask."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, replace
from typing import Literal

from engine.models.spec import Granularity, Quantization, Scheme

GROUP_SIZES = (32, 64, 128)
DEFAULT_GROUP_SIZE = 32
_FP8_CAPABILITY = (8, 9)
_INT4_CAPABILITY = (8, 0)
_FP8 = (Scheme.FP8_WEIGHT, Scheme.FP8_DYNAMIC)
_INT8_PRODUCTS = (Scheme.INT8_DYNAMIC, Scheme.INT8_STATIC)
# bitsandbytes: not among the requirements, and what it multiplies with is for NVIDIA's cards.
BITSANDBYTES = (Scheme.BNB_INT8, Scheme.BNB_NF4)
HAS_BITSANDBYTES = importlib.util.find_spec("bitsandbytes") is not None
BITSANDBYTES_PIN = "bitsandbytes==0.50.2"
NF4_GROUP_SIZE = 64
_OUTPUT_LAYER = "lm_head"


@dataclass(frozen=True, slots=True)
class Ability:
    """What a device can multiply.

    Attributes:
        capability: CUDA compute capability, (major, minor); None on a CPU.
        has_int8_products: INT8 by INT8 on this CPU (fbgemm).
        has_bitsandbytes: the package is installed; it counts on a GPU only.
    """

    kind: Literal["cpu", "cuda"] = "cpu"
    capability: tuple[int, int] | None = None
    has_int8_products: bool = True
    has_bitsandbytes: bool = HAS_BITSANDBYTES


def default_quantization(scheme: Scheme, ability: Ability) -> Quantization:
    """The choice of a scheme that costs least quality there at about its best speed.

    On a CPU the output layer is quantized too (8 bits a weight, shared with tied embeddings): in a small model it is
    a fifth of the weights. On a GPU quantized tensors cannot be shared with the embeddings, so it stays there.
    """
    keep = () if ability.kind == "cpu" and scheme not in BITSANDBYTES else (_OUTPUT_LAYER,)
    if scheme is Scheme.BNB_NF4:
        return Quantization(scheme, Granularity.GROUP, NF4_GROUP_SIZE, keep=keep)
    if scheme is Scheme.INT4_WEIGHT:
        group_size = DEFAULT_GROUP_SIZE if ability.kind == "cpu" else 128
        return Quantization(scheme, Granularity.GROUP, group_size, is_symmetric=False, keep=keep)
    return Quantization(scheme, keep=keep)


def offered_schemes(ability: Ability) -> tuple[Scheme, ...]:
    """What a form lists for such a device: all but bitsandbytes' where that cannot run."""
    return tuple(scheme for scheme in Scheme if scheme not in BITSANDBYTES or not _explain_package(scheme, ability))


def explain(quantization: Quantization, ability: Ability) -> tuple[str, ...]:
    """Why this cannot run there, each reason with its remedy; empty means that it can."""
    if quantization.scheme in BITSANDBYTES:
        reason = _explain_package(quantization.scheme, ability) or _explain_fixed(quantization)
        return () if reason is None else (reason,)
    found = (
        _explain_device(quantization.scheme, ability),
        _explain_granularity(quantization, ability),
        _explain_mapping(quantization, ability),
    )
    return tuple(reason for reason in found if reason is not None)


def _explain_device(scheme: Scheme, ability: Ability) -> str | None:
    on_gpu = ability.capability or (0, 0)
    if scheme in _FP8 and on_gpu < _FP8_CAPABILITY:
        here = "this is a CPU" if ability.kind == "cpu" else f"this one has {on_gpu[0]}.{on_gpu[1]}"
        return f"{scheme} needs a GPU of compute capability 8.9 or newer, and {here}: choose int8-weight"
    if scheme is Scheme.INT4_WEIGHT and ability.kind == "cuda" and on_gpu < _INT4_CAPABILITY:
        return (
            f"int4-weight needs a GPU of compute capability 8.0, this one has {on_gpu[0]}.{on_gpu[1]}: use int8-weight"
        )
    if scheme in _INT8_PRODUCTS and ability.kind == "cpu" and not ability.has_int8_products:
        return f"{scheme} needs INT8 products, which this torch has not for this CPU: choose int8-weight"
    return None


def _explain_package(scheme: Scheme, ability: Ability) -> str | None:
    instead = Scheme.INT4_WEIGHT if scheme is Scheme.BNB_NF4 else Scheme.INT8_WEIGHT
    if ability.kind == "cpu":
        return f"{scheme} needs an NVIDIA GPU, and this is a CPU: choose {instead}"
    if not ability.has_bitsandbytes:
        return (
            f"{scheme} needs the package bitsandbytes, which is not installed here: "
            f"pip install {BITSANDBYTES_PIN} and start the console again, or choose {instead}"
        )
    return None


def _explain_fixed(quantization: Quantization) -> str | None:
    """bitsandbytes leaves little to choose: which layers to keep, and the output layer is among them."""
    scheme = quantization.scheme
    fixed = default_quantization(scheme, Ability("cuda"))
    if replace(quantization, keep=fixed.keep, prompts=()) != fixed:
        scale = f"group of {fixed.group_size}" if fixed.group_size else str(fixed.granularity)
        return f"{scheme} has one symmetric scale a {scale} and no other: choose {scheme} without details"
    if _OUTPUT_LAYER not in quantization.keep:
        return f"{scheme} leaves the output layer as it is, which embeddings may share: name lm_head among those kept"
    return None


def _explain_granularity(quantization: Quantization, ability: Ability) -> str | None:
    scheme, granularity, size = quantization.scheme, quantization.granularity, quantization.group_size
    if scheme is Scheme.INT4_WEIGHT and granularity is not Granularity.GROUP:
        return f"int4-weight with one scale a {granularity} loses too much: choose granularity group"
    if scheme in (*_INT8_PRODUCTS, Scheme.FP8_DYNAMIC) and granularity is Granularity.GROUP:
        return f"{scheme} multiplies whole rows, so groups have no kernel: choose granularity channel, or int8-weight"
    if granularity is not Granularity.GROUP:
        return (
            None if size is None else f"group_size {size} has no meaning with granularity {granularity}: leave it out"
        )
    allowed = (*GROUP_SIZES, 256) if ability.kind == "cuda" else GROUP_SIZES
    if size is not None and size not in allowed:
        return f"group_size is {size}; the kernels know {', '.join(map(str, allowed))}: choose one of them"
    return None


def _explain_mapping(quantization: Quantization, ability: Ability) -> str | None:
    scheme = quantization.scheme
    if quantization.is_symmetric:
        if scheme is Scheme.INT4_WEIGHT and ability.kind == "cuda":
            return "int4-weight on a GPU is affine only: set is_symmetric to false"
        return None
    if scheme in _INT8_PRODUCTS or scheme in _FP8:
        return f"{scheme} has symmetric weights only: set is_symmetric to true, or choose int8-weight"
    if quantization.granularity is Granularity.TENSOR:
        return "affine weights need a scale a channel or a group: choose one of those granularities, or symmetric"
    return None
