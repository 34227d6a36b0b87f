"""The fused forward pass against the model's own, over a pool in pieces."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional
from torchao.quantization import (
    Float8WeightOnlyConfig,
    Int8DynamicActivationInt8WeightConfig,
    Int8WeightOnlyConfig,
    quantize_,
)
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from engine.inference.fused.fit import why_not_fused
from engine.inference.fused.model import FusedModel
from engine.inference.pool import PooledBatch

_SIZES = {
    "vocab_size": 301,
    "hidden_size": 72,
    "intermediate_size": 136,
    "num_hidden_layers": 2,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "head_dim": 24,
    "max_position_embeddings": 512,
    "initializer_range": 0.15,
}
# Each has something that the one before has not: biases, norms of queries and keys, a window.
_MODELS: dict[str, dict[str, Any]] = {
    "llama": {"tie_word_embeddings": True},
    "qwen2": {"head_dim": 8},
    "qwen3": {"attention_bias": True},
    "mistral": {"sliding_window": 4},
}
_DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
_FIRST = 5
_IDS = torch.arange(12, device=_DEVICE) * 23 % 301


class _Batch(PooledBatch):
    """FlashAttention's part written out, for it takes no float32."""

    def attend_kept(self, layer: int, query: torch.Tensor, scaling: float | None, window: int | None) -> torch.Tensor:
        (start, _), (length,), rows = self.starts.tolist(), self.lengths.tolist(), len(query)
        keys, values = self.layers[layer][:, start : start + length].transpose(1, 2)
        mask = torch.ones(rows, length, dtype=torch.bool, device=query.device).tril(length - rows)
        if window is not None:
            mask = mask.triu(length - rows - window + 1)
        attended = functional.scaled_dot_product_attention(
            query.transpose(0, 1)[None], keys[None], values[None], attn_mask=mask, scale=scaling, enable_gqa=True
        )
        return attended[0].transpose(0, 1)


def _make(kind: str) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(CONFIG_MAPPING[kind](**{**_SIZES, **_MODELS[kind]})).float().eval()
        for parameter in model.parameters():
            if parameter.dim() == 1:  # norms and biases, all alike else
                torch.nn.init.uniform_(parameter.data, 0.5, 1.5)
    model.set_attn_implementation("eager")
    return model.to(_DEVICE)


@pytest.mark.parametrize("kind", _MODELS)
@torch.inference_mode()
def test_logits_are_the_models_own(kind: str) -> None:
    """And the model's own weights, which view the joined ones afterwards, are what they were."""
    model = _make(kind)
    assert why_not_fused(model, torch.float32) is None
    expected = _logits(model)
    _assert_fused(model, expected)
    torch.testing.assert_close(_logits(model), expected, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("config", [Int8WeightOnlyConfig, Float8WeightOnlyConfig])
@torch.inference_mode()
def test_logits_of_stored_weights(config: Any) -> None:
    model = _make("qwen3")
    quantize_(model.model, config(set_inductor_config=False))
    assert why_not_fused(model, torch.float32) is None
    expected = _logits(model)
    _assert_fused(model, expected)
    torch.testing.assert_close(_logits(model), expected)


def _logits(model: Any) -> torch.Tensor:
    logits: torch.Tensor = model(input_ids=_IDS[None], use_cache=False).logits[0]
    return logits


def _assert_fused(model: Any, expected: torch.Tensor) -> None:
    """A prompt, more of it of which not all logits are wanted, a single row, and pieces of which none is."""
    fused = FusedModel(model)
    attention = model.model.layers[0].self_attn
    pool = [torch.zeros(2, 32, 3, attention.head_dim, device=_DEVICE) for _ in range(2)]

    def run(start: int, stop: int, wanted: list[int] | None) -> torch.Tensor:
        numbers = [[0, stop - start], [_FIRST, _FIRST + stop], [stop]]
        borders, starts, lengths = (torch.tensor(each, dtype=torch.int32, device=_DEVICE) for each in numbers)
        slots = torch.arange(_FIRST + start, _FIRST + stop, device=_DEVICE)
        rows = stop - start
        batch = _Batch(pool, slots, borders, starts, lengths, rows, stop, num_single=int(rows == 1))
        kept = None if wanted is None else torch.tensor(wanted, dtype=torch.long, device=_DEVICE)
        return fused.logits(_IDS[start:stop], torch.arange(start, stop, device=_DEVICE), batch, kept)

    limit = 3e-2 if _DEVICE.type == "cuda" else 2e-3  # a GPU's products of float32 have ten bits
    close = {"atol": limit, "rtol": limit}
    torch.testing.assert_close(run(0, 7, None), expected[:7], **close)
    torch.testing.assert_close(run(7, 10, [0, 2]), expected[[7, 9]], **close)
    torch.testing.assert_close(run(10, 11, None), expected[10:11], **close)
    assert run(11, 12, []).shape == (0, 301)
    assert run(9, 12, []).shape == (0, 301)


@torch.inference_mode()
def test_joined_weights_are_not_held_twice() -> None:
    model = _make("qwen3")
    fused = FusedModel(model)
    attention = model.model.layers[0].self_attn
    joined = fused._layers[0].joined.weight.untyped_storage().data_ptr()
    parts = (attention.q_proj, attention.k_proj, attention.v_proj)
    assert [part.weight.untyped_storage().data_ptr() for part in parts] == [joined] * 3


def test_what_does_not_fit() -> None:
    model = _make("llama")
    assert "weights of float32" in str(why_not_fused(model, torch.bfloat16))
    model.config.hidden_act = "gelu"
    assert why_not_fused(model, torch.float32) == "its activation is gelu"
    quantize_(model.model.layers[0].mlp.up_proj, Int8WeightOnlyConfig(set_inductor_config=False))
    model.config.hidden_act = "silu"
    assert "of several kinds" in str(why_not_fused(model, torch.float32))
    quantize_(model.model.layers[1], Int8DynamicActivationInt8WeightConfig(set_inductor_config=False))
    assert "quantizes what it multiplies" in str(why_not_fused(model, torch.float32))
    gemma = AutoModelForCausalLM.from_config(CONFIG_MAPPING["gemma"](**_SIZES))
    assert "does not know" in str(why_not_fused(gemma, torch.float32))
