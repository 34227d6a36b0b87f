"""Models of Llama's shape, for which steps are computed without their own Python: compiled on a CPU (compiled/), fused
on a GPU (fused/). This module imports no torch."""

from __future__ import annotations

from typing import Any

# Classes of transformers, by model type. They are told apart by what they have: biases, norms of queries and keys,
# windows. What else a configuration adds shows in the comparison with the model's logits.
ARCHITECTURES = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
}


def why_not_llama_shaped(model: Any) -> str | None:
    """Why `model` is none of them; None where it is one."""
    if type(model).__name__ not in ARCHITECTURES.values():
        return f"{type(model).__name__} has layers that it does not know"
    if model.config.hidden_act != "silu":
        return f"its activation is {model.config.hidden_act}"
    return None


def window_of(attention: Any) -> int | None:
    """How many tokens back a layer's attention looks; None for all. Qwen's layers have their own or none, Mistral's
    share the configuration's."""
    config = attention.config
    shared: int | None = config.sliding_window if config.model_type == "mistral" else None
    window: int | None = getattr(attention, "sliding_window", shared)
    return window
