"""What the runner and the pages need to know of a loaded model, read from its config."""

from __future__ import annotations

from typing import Any

import torch

from engine.errors import WeightsError
from engine.inference import attention
from engine.models.auto import is_image_model
from engine.models.spec import AttentionKernel, Modality

# The names under which configs call the longest context.
_CONTEXT_KEYS = ("max_position_embeddings", "max_seq_len", "seq_length", "context_length")
_FREE_CONTEXT = 8_192


def cache_shape(
    model: Any, dtype: torch.dtype, device: torch.device, kernel: AttentionKernel = "sdpa"
) -> attention.CacheShape:
    """What a token's keys and values take, to be read by `kernel`: nothing where no layer has attention heads, and in
    each layer as much as in the largest."""
    config = model.config.get_text_config()
    sizes = [size for size in map(_head_sizes, config.per_layer_config) if size is not None]
    num_kv_heads, key_dim, value_dim = max(sizes, key=lambda size: size[0] * size[1], default=(0, 0, None))
    return attention.CacheShape(config.num_hidden_layers, num_kv_heads, key_dim, dtype, device, kernel, value_dim)


def _head_sizes(config: Any) -> tuple[int, int, int | None] | None:
    """Heads with keys of their own, and the width of a key and of a value where it is another."""
    num_heads = getattr(config, "num_attention_heads", None)
    if not num_heads:
        return None
    if getattr(config, "kv_lora_rank", None):  # as engine/models/architecture.py plans multi-head latent attention
        return num_heads, config.qk_nope_head_dim + config.qk_rope_head_dim, config.v_head_dim
    num_kv_heads = getattr(config, "num_key_value_heads", None) or num_heads
    return num_kv_heads, getattr(config, "head_dim", None) or config.hidden_size // num_heads, None


def kernel(model: Any, asked: AttentionKernel) -> tuple[AttentionKernel, tuple[str, ...]]:
    """How attention will be computed, and a note where that is not as asked."""
    has_caps = bool(getattr(model.config.get_text_config(), "attn_logit_softcapping", None))
    has_sinks = any(name.endswith("sinks") for name, _ in model.named_parameters())
    if asked == "eager" or not (has_caps or has_sinks):
        return asked, ()
    what = "soft caps" if has_caps else "sinks"
    return "eager", (f"Its attention has {what}, so it is computed step by step in float32 and not fused.",)


def modalities(config: Any) -> tuple[Modality, ...]:
    """What a model of this config takes."""
    return (Modality.TEXT, Modality.IMAGES) if is_image_model(config) else (Modality.TEXT,)


def context_length(config: Any, asked: int | None = None) -> tuple[int, tuple[str, ...]]:
    """Tokens that one request may hold: the model's own bound, or less where that was asked for. A config that names
    none, as of models that keep a state, takes any; without being asked it gets `_FREE_CONTEXT` and a note.

    Raises:
        WeightsError: fewer than 1, or more than the model takes, was asked for.
    """
    text = config.get_text_config()
    length: int | None = next((value for key in _CONTEXT_KEYS if (value := getattr(text, key, None))), None)
    if asked is None:
        note = f"Its config names no context length: a request may have {_FREE_CONTEXT:,} tokens, or what you ask for."
        return (_FREE_CONTEXT, (note,)) if length is None else (length, ())
    if not 1 <= asked <= (length or asked):
        most = f"1 to {length:,}" if length else "1 or more"
        raise WeightsError(f"context_length is {asked:,}; this model takes {most}: choose within that")
    return asked, ()


def end_ids(model: Any, tokenizer: Any) -> frozenset[int]:
    """The tokens that end an answer."""
    named = model.generation_config.eos_token_id
    ids = named if isinstance(named, list) else [named]
    return frozenset(int(token_id) for token_id in [*ids, tokenizer.eos_token_id] if token_id is not None)


def notes(tokenizer: Any, left: tuple[str, ...]) -> tuple[str, ...]:
    """What the model does not do here, a sentence each. `left` are layers that quantizing left as they were."""
    found: list[str] = []
    if not tokenizer.chat_template:
        found.append("The tokenizer has no chat template, so it cannot chat: load an instruct model for that.")
    if left:
        found.append(f"{len(left)} layers stay in high precision, because their shape does not suit: {left[0]} ...")
    return tuple(found)
