"""Linear layers with their weights packed once for oneDNN, on a CPU in float32.

Two gains, measured on two AVX2 cores with the linear layers of SmolLM2-135M (docs/benchmarks.md): 1.3 times at one
row and 1.7 times at eight against `torch.nn.functional.linear`; and the packed product gives each row the same bits
whatever rows stand beside it, which is what makes a seeded answer the same alone and in any batch.

The operators are those that torch's own compiler emits when it freezes a model; torch is pinned to a version that
has them, and where they are missing the layers stay as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeGuard

import torch
from torch import nn

from engine.models.mapped_weights import copy_mapped_weights
from engine.models.weight_lines import SIBLINGS


def can_pack(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether packing applies here."""
    is_offered = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    return device.type == "cpu" and dtype == torch.float32 and is_offered


def pack_linears(model: nn.Module) -> int:
    """Replace every plain `nn.Linear` below `model`; the number replaced. Quantized layers, whose weight is no plain
    tensor, stay.

    Each unpacked weight is freed before the next is packed, unless it is shared with another module (tied
    embeddings), and what is left of the model afterwards keeps no file mapped. Nothing here holds a layer for longer
    than its turn: what else does, keeps its weight.
    """
    num_packed = _pack_below(model)
    if num_packed:
        copy_mapped_weights(model)
    return num_packed


def _pack_below(parent: nn.Module) -> int:
    """The output head, which has no weight of its own to free where it is tied, comes last."""
    num_packed = sum(map(_pack_below, parent.children()))
    for names in _groups_of(parent):
        product = PackedProduct([getattr(parent, name) for name in names])
        for index, name in enumerate(names):
            setattr(parent, name, PackedLinear(product, index))
        product.pack()
        num_packed += len(names)
    return num_packed


def _groups_of(parent: nn.Module) -> list[tuple[str, ...]]:
    """The names of `parent`'s own linear layers, those that can share a product together."""
    linears = {name: child for name, child in parent.named_children() if _is_plain(child)}
    groups: list[tuple[str, ...]] = []
    for names in SIBLINGS:
        members = [linears[name] for name in names if name in linears]
        if len(members) == len(names) and _can_share(members):
            groups.append(names)
    grouped = {name for names in groups for name in names}
    return groups + [(name,) for name in linears if name not in grouped]


def _is_plain(module: nn.Module) -> TypeGuard[nn.Linear]:
    return type(module) is nn.Linear and type(module.weight.data) is torch.Tensor


def _can_share(linears: Sequence[nn.Linear]) -> bool:
    first = linears[0]
    return all(
        linear.in_features == first.in_features and (linear.bias is None) == (first.bias is None) for linear in linears
    )


def _joined(weights: Sequence[torch.Tensor]) -> torch.Tensor:
    """The rows of all; a single one is not copied."""
    return weights[0] if len(weights) == 1 else torch.cat(list(weights))


class PackedProduct:
    """One product for one or several layers that read the same rows.

    It remembers the last rows by identity, so the second layer called on them finds its part done, and a layer
    called on other rows gets a product of its own. `pack` has to be called once, when whoever held the layers has
    let go of them: so their weights and the packed one are not in memory together with the joined one.
    """

    def __init__(self, linears: Sequence[nn.Linear]) -> None:
        biases = [linear.bias.detach() for linear in linears if linear.bias is not None]
        self.sizes = [linear.out_features for linear in linears]
        self.in_features = linears[0].in_features
        self._packed: Any = _joined([linear.weight.detach() for linear in linears])
        self._bias = torch.cat(biases) if biases else None
        self._rows: torch.Tensor | None = None
        self._parts: Sequence[torch.Tensor] = ()

    def pack(self) -> None:
        """Lay the weight out as oneDNN wants it."""
        self._packed = torch.ops.mkldnn._reorder_linear_weight(self._packed, None)

    def part(self, index: int, rows: torch.Tensor) -> torch.Tensor:
        """The output of layer `index` for `rows`."""
        if len(self.sizes) == 1:
            return self._multiply(rows)
        if rows is not self._rows:
            self._parts, self._rows = self._multiply(rows).split(self.sizes, dim=-1), rows
        part = self._parts[index]
        if index == len(self.sizes) - 1:
            self._parts, self._rows = (), None  # the last sibling has its part: nothing is held between layers
        return part

    def weight(self, index: int) -> torch.Tensor:
        """The weight of layer `index`, unpacked anew: (out features, in features)."""
        weights: tuple[torch.Tensor, ...] = self._packed.to_dense().split(self.sizes)
        return weights[index]

    def bias(self, index: int) -> torch.Tensor | None:
        """The bias of layer `index`."""
        return None if self._bias is None else self._bias.split(self.sizes)[index]

    def _multiply(self, rows: torch.Tensor) -> torch.Tensor:
        product: torch.Tensor = torch.ops.mkldnn._linear_pointwise(rows, self._packed, self._bias, "none", [], "")
        return product


class PackedLinear(nn.Module):
    """`nn.Linear` for inference, its weight in oneDNN's blocked layout."""

    def __init__(self, product: PackedProduct, index: int) -> None:
        super().__init__()
        self.in_features, self.out_features = product.in_features, product.sizes[index]
        self._product, self._index = product, index

    @property
    def weight(self) -> torch.Tensor:
        """For models that read a layer's weight beside calling it, as some routers' are: slow, so small ones only."""
        return self._product.weight(self._index)

    @property
    def bias(self) -> torch.Tensor | None:
        return self._product.bias(self._index)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """(..., in features) to (..., out features)."""
        return self._product.part(self._index, rows)
