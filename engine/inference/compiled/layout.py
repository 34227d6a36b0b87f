"""A transformers model's tensors as the structures that forward.c reads.

Nothing is copied but norms' and biases' few numbers where they are not float32: the structures point at the model's own
weights, and `Layout` keeps the model for as long as they are used.
"""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import nn

from engine.inference.attention import CacheShape
from engine.inference.llama_shaped import why_not_llama_shaped, window_of
from engine.models.quantized_linear import Int8Linear

_FLOAT32, _BFLOAT16, _INT8 = range(3)
_KINDS = {torch.float32: _FLOAT32, torch.bfloat16: _BFLOAT16}
# Inputs of a product come in whole registers, and twice as many at once where they are int16.
_LANES = {_FLOAT32: 8, _BFLOAT16: 8, _INT8: 16}


class Linear(ctypes.Structure):
    """See forward.c."""

    _fields_ = (
        ("weight", ctypes.c_void_p),
        ("scale", ctypes.c_void_p),
        ("bias", ctypes.c_void_p),
        ("kind", ctypes.c_int64),
        ("num_out", ctypes.c_int64),
        ("num_in", ctypes.c_int64),
    )


class Layer(ctypes.Structure):
    """See forward.c."""

    _fields_ = (
        *((name, Linear) for name in ("query", "key", "value", "output", "gate", "up", "down")),
        *((name, ctypes.c_void_p) for name in ("input_norm", "mlp_norm", "query_norm", "key_norm")),
        ("window", ctypes.c_int64),
    )


class Model(ctypes.Structure):
    """See forward.c."""

    _fields_ = (
        ("layers", ctypes.POINTER(Layer)),
        ("norm", ctypes.c_void_p),
        ("head", Linear),
        *(
            (name, ctypes.c_int64)
            for name in (
                "num_layers",
                "hidden",
                "num_heads",
                "num_kv_heads",
                "head_dim",
                "inner",
                "cache_kind",
            )
        ),
        ("epsilon", ctypes.c_float),
        ("scaling", ctypes.c_float),
    )


class Batch(ctypes.Structure):
    """See forward.c."""

    _fields_ = (
        ("num_rows", ctypes.c_int64),
        ("num_wanted", ctypes.c_int64),
        ("capacity_most", ctypes.c_int64),
        ("rotary_dim", ctypes.c_int64),
        *(
            (name, ctypes.c_void_p)
            for name in (
                "states",
                "cosine",
                "sine",
                "positions",
                "keys",
                "values",
                "capacities",
                "wanted",
                "logits",
            )
        ),
    )


def why_not_laid_out(model: Any) -> str | None:
    """Why forward.c cannot compute `model`, as far as its structure says; None where it can."""
    if (why := why_not_llama_shaped(model)) is not None:
        return why
    head_dim = model.model.layers[0].self_attn.head_dim
    if head_dim % _LANES[_FLOAT32]:
        return f"its heads are {head_dim} wide, no multiple of {_LANES[_FLOAT32]}"
    for name, module in model.named_modules():
        if hasattr(module, "in_features") and (why := _why_not_linear(module)):
            return f"{name} {why}"
    return None


def _why_not_linear(module: Any) -> str | None:
    if isinstance(module, Int8Linear):
        if module.zero_point is not None or module.scale.shape[1] != 1:
            return "has INT8 weights in groups"
    elif type(module) is not nn.Linear or type(module.weight.data) is not torch.Tensor:
        return f"is a {type(module).__name__}"
    elif module.weight.dtype not in _KINDS:
        return f"has weights of {str(module.weight.dtype).removeprefix('torch.')}"
    lanes = _LANES[_INT8 if isinstance(module, Int8Linear) else _KINDS[module.weight.dtype]]
    if module.in_features % lanes:
        return f"has {module.in_features} inputs, no multiple of {lanes}"
    return None


class Layout:
    """The structures of one model.

    Attributes:
        num_vocab: rows of its output head.
    """

    def __init__(self, model: Any, shape: CacheShape) -> None:
        self._kept: list[Any] = [model]
        config, body = model.config, model.model
        layers = [self._layer(layer) for layer in body.layers]
        self._layers = (Layer * len(layers))(*layers)
        attention = body.layers[0].self_attn
        self.num_vocab = model.lm_head.out_features
        self.structure = Model(
            layers=self._layers,
            norm=self._floats(body.norm.weight),
            head=self._linear(model.lm_head),
            num_layers=len(layers),
            hidden=config.hidden_size,
            num_heads=config.num_attention_heads,
            num_kv_heads=config.num_key_value_heads,
            head_dim=attention.head_dim,
            inner=config.intermediate_size,
            cache_kind=_KINDS[shape.dtype],
            epsilon=config.rms_norm_eps,
            scaling=attention.scaling,
        )

    def _layer(self, layer: Any) -> Layer:
        attention, mlp = layer.self_attn, layer.mlp
        return Layer(
            query=self._linear(attention.q_proj),
            key=self._linear(attention.k_proj),
            value=self._linear(attention.v_proj),
            output=self._linear(attention.o_proj),
            gate=self._linear(mlp.gate_proj),
            up=self._linear(mlp.up_proj),
            down=self._linear(mlp.down_proj),
            input_norm=self._floats(layer.input_layernorm.weight),
            mlp_norm=self._floats(layer.post_attention_layernorm.weight),
            query_norm=self._floats(getattr(attention, "q_norm", None)),
            key_norm=self._floats(getattr(attention, "k_norm", None)),
            window=window_of(attention) or 0,
        )

    def _linear(self, module: Any) -> Linear:
        is_int8 = isinstance(module, Int8Linear)
        weight = module.qdata if is_int8 else module.weight
        return Linear(
            weight=self._address(weight.detach()),
            scale=self._floats(module.scale) if is_int8 else None,
            bias=self._floats(module.bias),
            kind=_INT8 if is_int8 else _KINDS[weight.dtype],
            num_out=module.out_features,
            num_in=module.in_features,
        )

    def _floats(self, numbers: Any) -> int | None:
        if isinstance(numbers, nn.Module):
            numbers = numbers.weight
        return None if numbers is None else self._address(numbers.detach().float())

    def _address(self, tensor: torch.Tensor) -> int:
        contiguous = tensor.contiguous()
        self._kept.append(contiguous)
        return contiguous.data_ptr()
