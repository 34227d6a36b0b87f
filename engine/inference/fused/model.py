"""A transformers model's forward pass over a pool of caches, with its own weights and fewer, larger pieces of work.

Queries, keys and values are one product, gate and up another: their weights are joined, and the model's own become
views of the joined ones, so nothing is held twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from engine.inference.fused.kernels import (
    FEW,
    add_and_norm,
    attend_rows,
    gate,
    multiply_few,
    multiply_row,
    restore,
    turn_and_keep,
)
from engine.inference.fused.stored import keep_as, stored
from engine.inference.llama_shaped import window_of
from engine.inference.pool import PooledBatch


@dataclass(frozen=True, slots=True)
class _Linear:
    """`scale` is what one step of each row of an integer or float8 weight means, (out,), float32."""

    weight: torch.Tensor
    bias: torch.Tensor | None
    scale: torch.Tensor | None

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        if self.scale is None:
            return functional.linear(rows, self.weight, self.bias)
        if len(rows) <= FEW:
            return multiply_few(rows, self.weight, self.scale, self.bias)
        return functional.linear(rows, restore(self.weight, self.scale, rows.dtype), self.bias)

    def of_row(self, row: torch.Tensor, **also: Any) -> torch.Tensor:
        """Of a single row, with what `multiply_row` does also."""
        return multiply_row(row, self.weight, self.bias, self.scale, **also)


@dataclass(frozen=True, slots=True)
class _Layer:
    input_norm: torch.Tensor
    joined: _Linear
    head_norms: tuple[torch.Tensor, torch.Tensor] | None
    output: _Linear
    mlp_norm: torch.Tensor
    gate_up: _Linear
    down: _Linear
    window: int | None


class FusedModel:
    """What a Llama-shaped model computes, of which `why_not_fused` says nothing."""

    def __init__(self, model: Any) -> None:
        self._embed = model.get_input_embeddings()
        self._body = model.model
        attention = self._body.layers[0].self_attn
        self._head_dim: int = attention.head_dim
        self._scaling: float = attention.scaling
        self._epsilon: float = model.config.rms_norm_eps
        self._layers = [_lay_out(layer) for layer in self._body.layers]
        device = model.lm_head.weight.device
        self._can_be_early = device.type == "cuda" and torch.cuda.get_device_capability(device) >= (9, 0)
        self._norm = self._body.norm.weight.detach()
        self._head = _linear(model.lm_head)
        self._compile_for_many_rows()

    def _compile_for_many_rows(self) -> None:
        """What is not run by a few tokens, as those of a comparison are: a request would wait for it."""
        layer = self._layers[0]
        for linear in (layer.joined, layer.output, layer.gate_up, layer.down):
            if linear.scale is not None:
                for num_rows in (FEW, FEW + 1):
                    rows = torch.zeros(
                        num_rows, linear.weight.shape[1], dtype=self._norm.dtype, device=self._norm.device
                    )
                    linear(rows)

    def logits(
        self, ids: torch.Tensor, positions: torch.Tensor, batch: PooledBatch, wanted: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Logits (rows, vocab) of the rows at `wanted`, (rows,), or of all, after running `ids` at `positions`,
        (tokens,) each."""
        embedded = self._embed(ids)
        turns = self._body.rotary_emb(embedded[None], positions[None])
        cosine, sine = (part[0].contiguous() for part in turns)
        if len(ids) == 1:
            logits = self._run_row(embedded, (cosine, sine), batch)
            return logits if wanted is None else logits[: len(wanted)]
        return self._run_rows(embedded, (cosine, sine), batch, wanted)

    def _run_row(self, row: torch.Tensor, turns: tuple[torch.Tensor, torch.Tensor], batch: PooledBatch) -> torch.Tensor:
        also = {"epsilon": self._epsilon, "is_early": self._can_be_early}
        for index, layer in enumerate(self._layers):
            joined = layer.joined.of_row(row, norm=layer.input_norm, **also)
            attended = self._attend(index, layer, joined, turns, batch)
            row = layer.output.of_row(attended, residual=row, **also)
            inner = layer.gate_up.of_row(row, norm=layer.mlp_norm, is_gated=True, **also)
            row = layer.down.of_row(inner, residual=row, **also)
        return self._head.of_row(row, norm=self._norm, **also)

    def _run_rows(
        self,
        states: torch.Tensor,
        turns: tuple[torch.Tensor, torch.Tensor],
        batch: PooledBatch,
        wanted: torch.Tensor | None,
    ) -> torch.Tensor:
        added = None
        for index, layer in enumerate(self._layers):
            joined = layer.joined(add_and_norm(states, added, layer.input_norm, self._epsilon))
            attended = self._attend(index, layer, joined, turns, batch)
            normed = add_and_norm(states, layer.output(attended), layer.mlp_norm, self._epsilon)
            added = layer.down(gate(layer.gate_up(normed)))
        assert added is not None
        if wanted is not None:
            states, added = states[wanted], added[wanted]
            if not len(states):
                return states.new_empty((0, len(self._head.weight)))
        return self._head(add_and_norm(states, added, self._norm, self._epsilon))

    def _attend(
        self,
        index: int,
        layer: _Layer,
        joined: torch.Tensor,
        turns: tuple[torch.Tensor, torch.Tensor],
        batch: PooledBatch,
    ) -> torch.Tensor:
        heads = joined.view(len(joined), -1, self._head_dim)
        kept, single = batch.layers[index], batch.num_single
        is_early = self._can_be_early and len(joined) == 1
        query = turn_and_keep(heads, turns, layer.head_norms, self._epsilon, batch.slots, kept, is_early=is_early)
        out = torch.empty(query.shape, dtype=query.dtype, device=query.device)
        if single:
            starts, lengths = batch.starts[:single], batch.lengths[:single]
            scaling, window = self._scaling, layer.window
            attend_rows(query[:single], kept, starts, lengths, scaling, window, out[:single], is_early=is_early)
        if single < len(query):
            out[single:] = batch.after_single().attend_kept(index, query[single:], self._scaling, layer.window)
        return out.view(len(joined), -1)


def _lay_out(layer: Any) -> _Layer:
    attention, mlp = layer.self_attn, layer.mlp
    norms = (attention.q_norm.weight, attention.k_norm.weight) if hasattr(attention, "q_norm") else None
    return _Layer(
        input_norm=layer.input_layernorm.weight.detach(),
        joined=_join((attention.q_proj, attention.k_proj, attention.v_proj)),
        head_norms=None if norms is None else (norms[0].detach(), norms[1].detach()),
        output=_linear(attention.o_proj),
        mlp_norm=layer.post_attention_layernorm.weight.detach(),
        gate_up=_join((mlp.gate_proj, mlp.up_proj)),
        down=_linear(mlp.down_proj),
        window=window_of(attention),
    )


def _linear(module: nn.Linear) -> _Linear:
    weight, scale = stored(module)
    return _Linear(weight, None if module.bias is None else module.bias.detach(), scale)


def _join(modules: Sequence[nn.Linear]) -> _Linear:
    """One linear layer of them all, whose weights they then view."""
    parts = [_linear(module) for module in modules]
    weight = torch.cat([part.weight for part in parts])
    scales = [part.scale for part in parts if part.scale is not None]
    biases = [part.bias for part in parts if part.bias is not None]
    start = 0
    for module in modules:
        keep_as(module, weight[start : start + module.out_features])
        start += module.out_features
    del parts
    if weight.is_cuda:
        torch.cuda.empty_cache()  # what they had does not fit what the next layer's need
    return _Linear(weight, torch.cat(biases) if biases else None, torch.cat(scales) if scales else None)
