"""The sizes of a model that its memory depends on, from config.json or a GGUF file's metadata.

Plain JSON, because transformers' own reading imports torch and takes seconds. A config may leave out what its class
sets by default; such a value is taken from the shapes of the tensors.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.errors import WeightsError
from engine.models.headers import TensorInfo
from engine.weights.strict_json import parse_json

CONFIG_FILE = "config.json"
# Under this key config.json says how the console itself quantized the weights (engine/models/saved.py).
CONSOLE_QUANTIZATION = "console_quantization"
# A name of transformers' and the names by which some configs call the same, as in its `attribute_map`.
_ALIASES = {
    "hidden_size": ("n_embd", "d_model", "dim"),
    "num_hidden_layers": ("n_layer", "n_layers", "num_layers", "decoder_layers"),
    "num_attention_heads": ("n_head", "n_heads", "num_heads", "decoder_attention_heads", "attention_heads"),
    "num_key_value_heads": ("num_kv_heads", "n_head_kv", "multi_query_group_num", "num_attention_groups"),
    "head_dim": ("kv_channels", "attention_head_dim"),
    "intermediate_size": ("n_inner", "ffn_dim", "decoder_ffn_dim", "ffn_hidden_size", "d_ff", "d_inner"),
    "vocab_size": ("padded_vocab_size", "n_words", "n_vocab"),
    "max_position_embeddings": ("n_positions", "n_ctx", "seq_length", "max_seq_len", "max_sequence_length"),
    "num_experts": ("num_local_experts", "n_routed_experts", "moe_num_experts"),
    "num_experts_per_tok": ("moe_topk", "moe_k", "num_experts_per_token", "top_k_experts"),
}
_VISION_ALIASES = {
    "hidden_size": ("embed_dim", "width"),
    "num_hidden_layers": ("depth", "num_layers", "layers"),
    "num_attention_heads": ("num_heads", "heads"),
}
_TEXT_PARTS = ("text_config", "llm_config", "language_config", "decoder")
_VISION_PARTS = ("vision_config", "vit_config", "visual", "vision_tower_config")
_GGUF_KEYS = {
    "block_count": "num_hidden_layers",
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "expert_feed_forward_length": "moe_intermediate_size",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.key_length": "head_dim",
    "attention.sliding_window": "sliding_window",
    "context_length": "max_position_embeddings",
    "expert_count": "num_experts",
    "expert_used_count": "num_experts_per_tok",
    "vocab_size": "vocab_size",
}


@dataclass(frozen=True, slots=True)
class VisionShape:
    """The image encoder. `merge_size` patches a side become one token of the text model; the largest image has
    `max_tokens` of them, None where that is not known."""

    num_layers: int
    hidden_size: int
    intermediate_size: int
    merge_size: int
    max_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Architecture:
    """What config says.

    Attributes:
        active_width: columns of the MLP one token goes through; in a mixture of experts those of the chosen ones.
        query_width, key_width, value_width: elements of one token in one layer, over all heads.
        latent_width: elements of a compressed cache (MLA) of one token in one layer; None without.
        context_length: tokens; None where the config names no bound.
        sliding_window: tokens, where layers look back no further; the engine keeps whole caches for them all the same.
        is_tied: whether the output head is the embedding table; None where the config does not say.
        quant_method: how the checkpoint itself is quantized.
        needs_eager: whether attention has soft caps or sinks, which no fused kernel computes.
    """

    name: str
    model_type: str
    num_layers: int
    hidden_size: int
    active_width: int
    num_heads: int | None
    query_width: int
    key_width: int
    value_width: int
    latent_width: int | None
    vocab_size: int
    context_length: int | None
    sliding_window: int | None
    num_experts: int
    is_tied: bool | None
    quant_method: str | None
    dtype: str | None
    vision: VisionShape | None
    needs_eager: bool = False


def read_config(folder: Path) -> dict[str, Any]:
    """`folder`'s config.json.

    Raises:
        WeightsError: it is missing or is no JSON object.
    """
    file = folder / CONFIG_FILE
    try:
        return parse_config(file.read_bytes(), str(file))
    except OSError as error:
        raise WeightsError(f"{file} cannot be read: {error.strerror or error}; fetch it again") from error


def parse_config(raw: bytes, name: str, remedy: str = "fetch it again") -> dict[str, Any]:
    """What a config.json holds, which messages call `name`.

    Raises:
        WeightsError: it is no JSON object.
    """
    try:
        config = parse_json(raw)
    except ValueError as error:
        raise WeightsError(f"{name} cannot be read, {error}: {remedy}") from error
    if not isinstance(config, dict):
        raise WeightsError(f"{name} is not a JSON object: {remedy}")
    return config


def gguf_name(kind: Any) -> str:
    """What stands for the name of a class, which a GGUF file does not have."""
    return f"{kind} (GGUF)"


def config_from_gguf(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """What a GGUF file's metadata says, by transformers' names."""
    kind = metadata.get("general.architecture")
    config: dict[str, Any] = {"model_type": kind, "architectures": [gguf_name(kind)]}
    for key, name in _GGUF_KEYS.items():
        value = metadata.get(f"{kind}.{key}")
        if value is not None:  # an array, a value a layer, has only its length here, and the tensors must show it
            config[name] = value
    config.setdefault("vocab_size", metadata.get("tokenizer.ggml.tokens#"))
    return config


def parse_architecture(config: Mapping[str, Any], tensors: Iterable[TensorInfo] = ()) -> Architecture:
    """The sizes, from a config, and from tensors where it is silent.

    Raises:
        WeightsError: a size is in neither.
    """
    tensors = tuple(tensors)
    text = _part(config, _TEXT_PARTS) or config
    fields = _Fields(text, _ALIASES)
    shapes = _Shapes(tensors)
    hidden = fields.need("hidden_size", shapes.last("embed_tokens.weight", "wte.weight"))
    query, key, value, latent = _attention_widths(fields, shapes, hidden)
    kind = config.get("model_type")
    names = config.get("architectures")
    tied = text.get("tie_word_embeddings", config.get("tie_word_embeddings"))
    return Architecture(
        name=str(names[0]) if isinstance(names, list) and names else str(kind or "unknown"),
        model_type=str(text.get("model_type") or kind or "unknown"),
        num_layers=fields.need("num_hidden_layers"),
        hidden_size=hidden,
        active_width=_active_width(fields, shapes, hidden),
        num_heads=fields.find("num_attention_heads"),
        query_width=query,
        key_width=key,
        value_width=value,
        latent_width=latent,
        vocab_size=fields.need("vocab_size", shapes.first("embed_tokens.weight", "wte.weight", "token_embd.weight")),
        context_length=fields.find("max_position_embeddings"),
        sliding_window=_sliding_window(text),
        num_experts=fields.find("num_experts") or 0,
        is_tied=tied if isinstance(tied, bool) else None,
        quant_method=_quant_method(config, text),
        dtype=_dtype(config, text),
        vision=_vision(config),
        needs_eager=bool(text.get("attn_logit_softcapping"))
        or any(tensor.name.endswith("sinks") for tensor in tensors),
    )


class _Fields:
    """Looks numbers up under all their names."""

    def __init__(self, config: Mapping[str, Any], aliases: Mapping[str, tuple[str, ...]]) -> None:
        self.config = config
        self._aliases = aliases

    def find(self, name: str) -> int | None:
        for key in (name, *self._aliases.get(name, ())):
            value = self.config.get(key)
            if type(value) is int and value > 0:
                return value
        return None

    def need(self, name: str, otherwise: int | None = None) -> int:
        value = self.find(name) or otherwise
        if value is None:
            raise WeightsError(
                f"config.json gives no {name} and the tensors do not show it: the memory cannot be planned, "
                "complete the config"
            )
        return value


class _Shapes:
    """First and last sizes of matrices by the end of their name, in the first layer that has one."""

    def __init__(self, tensors: Iterable[TensorInfo]) -> None:
        self._tensors = [tensor for tensor in tensors if tensor.shape and tensor.is_cast]

    def _find(self, endings: tuple[str, ...]) -> tuple[int, ...] | None:
        texts = (tensor for tensor in self._tensors if "vis" not in tensor.name)
        return next((tensor.shape for tensor in texts if tensor.name.endswith(endings)), None)

    def first(self, *endings: str) -> int | None:
        shape = self._find(endings)
        return shape[0] if shape else None

    def last(self, *endings: str) -> int | None:
        shape = self._find(endings)
        return shape[-1] if shape else None


def _attention_widths(fields: _Fields, shapes: _Shapes, hidden: int) -> tuple[int, int, int, int | None]:
    heads = fields.find("num_attention_heads")
    if (rank := fields.find("kv_lora_rank")) and heads:
        return _latent_widths(fields, heads, rank)
    kv_heads = fields.find("num_key_value_heads")
    head_dim = fields.find("head_dim") or shapes.first("q_norm.weight") or (hidden // heads if heads else None)
    query = heads * head_dim if heads and head_dim else shapes.first("q_proj.weight")
    key = kv_heads * head_dim if kv_heads and head_dim else shapes.first("k_proj.weight", "attn_k.weight")
    if query is None:
        query = fields.need("num_attention_heads") * (head_dim or 0)
    key = key or query
    return query, key, key, None


def _latent_widths(fields: _Fields, heads: int, rank: int) -> tuple[int, int, int, int | None]:
    """Multi-head latent attention (DeepSeek-V2, arXiv:2405.04434): the cache as transformers expands it, a head's key
    being its position-free and its rotary part; and the latent that could be kept instead."""
    rotary = fields.need("qk_rope_head_dim")
    key = heads * (fields.need("qk_nope_head_dim") + rotary)
    return key, key, heads * fields.need("v_head_dim"), rank + rotary


def _active_width(fields: _Fields, shapes: _Shapes, hidden: int) -> int:
    dense = fields.find("intermediate_size") or shapes.first("up_proj.weight", "ffn_up.weight") or 4 * hidden
    if not fields.find("num_experts"):
        return dense
    each = fields.find("moe_intermediate_size") or fields.find("expert_ffn_hidden_size") or dense
    chosen = fields.find("num_experts_per_tok") or 1
    shared = fields.find("shared_expert_intermediate_size") or each * (fields.find("n_shared_experts") or 0)
    return chosen * each + shared


def _sliding_window(text: Mapping[str, Any]) -> int | None:
    """Configs of Qwen name a window and switch it off."""
    window = text.get("sliding_window")
    is_on = text.get("use_sliding_window", True) and type(window) is int and window > 0
    return window if is_on else None


def _quant_method(config: Mapping[str, Any], text: Mapping[str, Any]) -> str | None:
    if CONSOLE_QUANTIZATION in config:
        return CONSOLE_QUANTIZATION
    for part in (config, text):
        quantization = part.get("quantization_config")
        if isinstance(quantization, Mapping):
            return str(quantization.get("quant_method") or "of an unnamed method")
    return None


def _dtype(config: Mapping[str, Any], text: Mapping[str, Any]) -> str | None:
    saved = config.get(CONSOLE_QUANTIZATION)
    parts = (saved if isinstance(saved, Mapping) else {}, config, text)
    value = next((part[key] for part in parts for key in ("dtype", "torch_dtype") if part.get(key)), None)
    return str(value).removeprefix("torch.") if value is not None else None


def _vision(config: Mapping[str, Any]) -> VisionShape | None:
    vision = _part(config, _VISION_PARTS)
    if vision is None:
        return None
    fields = _Fields(vision, _VISION_ALIASES)
    hidden = fields.find("hidden_size") or 1_024
    return VisionShape(
        num_layers=fields.find("num_hidden_layers") or 24,
        hidden_size=hidden,
        intermediate_size=fields.find("intermediate_size") or 4 * hidden,
        merge_size=fields.find("spatial_merge_size") or 1,
    )


def _part(config: Mapping[str, Any], names: Iterable[str]) -> Mapping[str, Any] | None:
    whole = config.get("thinker_config")
    config = whole if isinstance(whole, Mapping) else config
    return next((config[name] for name in names if isinstance(config.get(name), Mapping)), None)
