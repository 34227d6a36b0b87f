"""On a GPU: one attention kernel for all requests, and steps that write one token each as CUDA graphs."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch

from engine.inference.decode_graphs import DecodeGraphs, Row
from engine.inference.forward import Packed, Part
from engine.inference.pool import KvPool, PooledBatch, PooledCache
from engine.models.failures import first_line
from engine.models.loader import LoadedModel
from engine.scheduling.admission import Limits

_log = logging.getLogger(__name__)


class Pooled(Packed):
    """As `Packed`, with the caches of all requests in one pool. `how` is how a pass of the model is run.

    Attributes:
        why_no_graphs: what of the model's step no graph can hold; None where graphs are used.
    """

    def __init__(self, loaded: LoadedModel, limits: Limits, how: str) -> None:
        super().__init__(loaded)
        self._how = how
        self.why_no_graphs: str | None = None
        self._pool = KvPool(loaded.cache_shape, limits.cache_tokens)
        most = min(loaded.info.context_length, limits.cache_tokens)
        self._graphs = DecodeGraphs(self._run_step, self._pool, limits.max_running, most)

    @property
    def name(self) -> str:
        graphs = "CUDA graphs" if self.why_no_graphs is None else f"no CUDA graphs ({self.why_no_graphs})"
        return f"all requests in one pass, FlashAttention over one pool of caches, {graphs}, {self._how}"

    @property
    def held_tokens(self) -> int:
        return self._pool.regions.size

    def new_cache(self, _num_tokens: int, most: int) -> PooledCache:
        """All of it at once: a region has no room beside it to grow into."""
        return self._pool.open(most)

    def logits(self, parts: Sequence[Part], chosen: torch.Tensor | None = None) -> torch.Tensor:
        writes_one_each = all(len(part.token_ids) <= 1 == part.num_logits for part in parts)
        if not writes_one_each or not self._has_graphs(len(parts)):
            return super().logits(parts, chosen)
        for part in parts:
            part.cache.length = part.past + 1
        return self._graphs.run([_row(part) for part in parts], chosen)

    def _run_step(self, ids: torch.Tensor, positions: torch.Tensor, batch: PooledBatch) -> torch.Tensor:
        """Logits (rows, vocab) of one token of each request."""
        output = self._model(
            input_ids=ids[None], position_ids=positions[None], use_cache=False, packed_batch=batch, logits_to_keep=0
        )
        logits: torch.Tensor = output.logits[0]
        return logits

    def _has_graphs(self, num_rows: int) -> bool:
        """Whether steps of so many rows can be replayed; the graphs are made when one is first asked for, or the pool
        has moved."""
        if self.why_no_graphs is None and not self._graphs.are_ready:
            try:
                self._graphs.capture()
            except RuntimeError as error:
                self.why_no_graphs = first_line(error)
                _log.warning("steps run without CUDA graphs, as one cannot be captured: %s", self.why_no_graphs)
        return self.why_no_graphs is None and num_rows <= self._graphs.max_rows


def _row(part: Part) -> Row:
    """Its token stands at its index, unless images came before it."""
    positions = None if part.images is None else part.images.positions(part.past, part.past + 1)
    position = part.past if positions is None else int(positions[0, 0])
    return Row(part.token_ids[0] if part.is_known else None, position, part.past, part.cache)
