"""On a CPU: one call of compiled code a step, for the tokens of all requests, with no Python between the layers.

The call holds no interpreter lock, so pages and requests go on beside it; and it gives each token the same bits
whatever else is in its step (compiled/forward.c says how).
"""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Sequence
from contextlib import AbstractContextManager

import torch

from engine.inference import attention
from engine.inference.compiled.layout import Batch, Layout
from engine.inference.compiled.library import library
from engine.inference.compiled.torch_threads import one_thread
from engine.inference.forward import Packed, Part
from engine.models.loader import LoadedModel


class Compiled(Packed):
    """As `Packed`, each step one call. For a model and a machine of which `why_not_compiled` says nothing."""

    def __init__(self, loaded: LoadedModel) -> None:
        super().__init__(loaded)
        functions = library().functions
        if functions is None:
            raise RuntimeError("there is no library of compiled steps: ask why_not_compiled first")
        self._layout = Layout(loaded.model, loaded.cache_shape)
        self._functions = functions
        self._pool = functions.console_open_pool(torch.get_num_threads())
        if self._pool is None:
            raise MemoryError(f"the system gives no {torch.get_num_threads()} threads for compiled steps")
        weakref.finalize(self, functions.console_close_pool, self._pool)

    @property
    def name(self) -> str:
        return "all requests in one pass of compiled code"

    def stepping(self) -> AbstractContextManager[None]:
        return one_thread()

    def logits(self, parts: Sequence[Part], _chosen: torch.Tensor | None = None) -> torch.Tensor:
        caches: list[attention.SequenceCache] = []
        ids: list[int] = []
        positions: list[int] = []
        wanted: list[int] = []
        for part in parts:
            num_tokens = len(part.token_ids)
            caches.extend([part.cache] * num_tokens)
            ids.extend(part.token_ids)
            positions.extend(range(part.past, part.past + num_tokens))
            wanted.extend(range(len(ids) - part.num_logits, len(ids)))
            part.cache.length = part.past + num_tokens
        logits = torch.empty((len(wanted), self._layout.num_vocab))
        self._call(ids, positions, caches, wanted, logits)
        return logits

    def _call(
        self,
        ids: list[int],
        positions: list[int],
        caches: list[attention.SequenceCache],
        wanted: list[int],
        logits: torch.Tensor,
    ) -> None:
        states = self._model.get_input_embeddings()(torch.tensor(ids)).float().contiguous()
        places = torch.tensor([positions])
        cosine, sine = (part[0].float().contiguous() for part in self._model.model.rotary_emb(states, places))
        addresses = torch.tensor([cache.addresses for cache in caches]).T.contiguous()
        capacities = [cache.capacity for cache in caches]
        rooms, rows = torch.tensor(capacities), torch.tensor(wanted, dtype=torch.long)
        tensors = (states, cosine, sine, places, addresses[0], addresses[1], rooms, rows, logits)
        sizes = (len(ids), len(wanted), max(capacities), cosine.shape[-1])
        batch = Batch(*sizes, *(tensor.data_ptr() for tensor in tensors))
        structure = self._layout.structure
        if self._functions.console_forward(self._pool, ctypes.byref(structure), ctypes.byref(batch)):
            raise MemoryError(f"there is no memory for a step of {len(ids)} tokens")
