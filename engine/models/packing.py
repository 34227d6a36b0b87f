"""Linear layers with their weights packed once for oneDNN, on a CPU in float32.

Two gains, measured on two AVX2 cores with the linear layers of SmolLM2-135M (docs/benchmarks.md): 1.3 times at one
row and 1.7 times at eight against `torch.nn.functional.linear`; and the packed product gives each row the same bits
whatever rows stand beside it, which is what makes a seeded answer the same alone and in any batch.

The operators are those that torch's own compiler emits when it freezes a model; torch is pinned to a version that
has them, and where they are missing the layers stay as they are.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


def can_pack(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether packing applies here."""
    is_offered = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    return device.type == "cpu" and dtype == torch.float32 and is_offered


def pack_linears(model: nn.Module) -> int:
    """Replace every plain `nn.Linear` below `model`; the number replaced. An unpacked weight is freed unless it is
    shared with another module (tied embeddings)."""
    num_packed = 0
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.Linear:
                setattr(parent, name, PackedLinear(child))
                num_packed += 1
    return num_packed


class PackedLinear(nn.Module):
    """`nn.Linear` for inference, its weight in oneDNN's blocked layout."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self._packed: Any = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), None)
        self._bias = None if linear.bias is None else linear.bias.detach()

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """(..., in features) to (..., out features)."""
        product: torch.Tensor = torch.ops.mkldnn._linear_pointwise(rows, self._packed, self._bias, "none", [], "")
        return product
