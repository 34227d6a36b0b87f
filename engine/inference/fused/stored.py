"""The weight of a linear layer as it is stored: in the model's dtype, or as torchao's integers or float8 and scales."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torchao.quantization import Float8Tensor, Int8Tensor

_STORED = (torch.int8, torch.float8_e4m3fn)


def why_not_stored(module: nn.Module, dtype: torch.dtype) -> str | None:
    """Why `stored` has no answer for a layer of a model in `dtype`; None where it has."""
    if type(module) is not nn.Linear:
        return f"is a {type(module).__name__}"
    weight = module.weight.data
    if isinstance(weight, Int8Tensor | Float8Tensor):
        if weight.act_quant_kwargs is not None:
            return "quantizes what it multiplies"
        zero_point = getattr(weight, "zero_point", None)
        if weight.qdata.dtype not in _STORED or (zero_point is not None and bool(zero_point.any())):
            return "has zero points, or numbers of another kind"
        if weight.scale.numel() not in (1, module.out_features):
            return "has weights in groups"
    elif type(weight) is not torch.Tensor:
        return f"has weights as {type(weight).__name__}"
    elif weight.dtype != dtype:
        return f"has weights of {str(weight.dtype).removeprefix('torch.')}"
    return None


def stored(module: nn.Linear) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The weight, (out, in), and of integers and float8 what one step means, (out,), float32."""
    weight = module.weight.data
    if not isinstance(weight, Int8Tensor | Float8Tensor):
        return weight.detach(), None
    scale = weight.scale.detach().float().reshape(-1)
    return weight.qdata.detach(), scale.expand(module.out_features).contiguous()


def keep_as(module: nn.Linear, weight: torch.Tensor) -> None:
    """Have the layer hold its stored weight in `weight`, a view of the same numbers."""
    held: Any = module.weight
    if isinstance(held.data, Int8Tensor | Float8Tensor):
        held.qdata = weight
    else:
        module.weight.data = weight
