"""On a GPU: as `Pooled`, with a forward pass of our own for models of Llama's shape (fused/)."""

from __future__ import annotations

import torch

from engine.inference.attention import PackedInput
from engine.inference.fused.model import FusedModel
from engine.inference.pool import PooledBatch
from engine.inference.pooled_forward import Pooled
from engine.models.loader import LoadedModel
from engine.scheduling.admission import Limits


class Fused(Pooled):
    """For a model of which `why_not_fused` says nothing."""

    def __init__(self, loaded: LoadedModel, limits: Limits) -> None:
        super().__init__(loaded, limits, "fused kernels")
        self._fused = FusedModel(loaded.model)

    def _run(self, packed: PackedInput, wanted: torch.Tensor) -> torch.Tensor:
        arguments = packed.arguments(self._model, self._shape.device)
        ids, positions = arguments["input_ids"][0], arguments["position_ids"][0]
        return self._fused.logits(ids, positions, arguments["packed_batch"], wanted)

    def _run_step(self, ids: torch.Tensor, positions: torch.Tensor, batch: PooledBatch) -> torch.Tensor:
        return self._fused.logits(ids, positions, batch)
