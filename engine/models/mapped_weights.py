"""Weights that are pages of their checkpoint's file: copied, so that the file can be let go of."""

from __future__ import annotations

import torch
from torch import nn

from engine.models.process_memory import find_mapped


def copy_mapped_weights(model: nn.Module) -> None:
    """Give the parameters and buffers that are pages of a file memory of their own.

    One of them keeps its whole file mapped. So it is worth it where few are left: after packing, when all but the
    embeddings of a float32 checkpoint are copies already, or after quantizing.
    """
    tensors = [tensor for tensor in (*model.parameters(), *model.buffers()) if type(tensor.data) is torch.Tensor]
    mapped = find_mapped(tensor.data_ptr() for tensor in tensors)
    for tensor in tensors:
        if tensor.data_ptr() in mapped:
            tensor.data = tensor.detach().clone()
