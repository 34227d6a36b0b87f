from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import WeightsError
from engine.models.architecture import config_from_gguf, parse_architecture, read_config
from engine.models.headers import tensor_info
from tests.engine.models.architectures import GEMMA_2_2B, GLM_4_1V_9B, GPT_2, LLAMA_3_8B, MIXTRAL_8X7B, QWEN3_30B_A3B

_NAMES = [*LLAMA_3_8B, *GPT_2, "text_config", "vision_config", "kv_lora_rank", "quantization_config", "head_dim"]
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 1 << 40) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(_NAMES), inner, max_size=5),
)


def test_glm_has_two_parts() -> None:
    shape = parse_architecture(GLM_4_1V_9B)
    assert (shape.name, shape.model_type) == ("Glm4vForConditionalGeneration", "glm4v_text")
    assert (shape.num_layers, shape.key_width, shape.query_width) == (40, 256, 4096)
    assert shape.vision is not None
    assert (shape.vision.num_layers, shape.vision.hidden_size, shape.vision.merge_size) == (24, 1536, 2)


def test_other_names_mean_the_same() -> None:
    shape = parse_architecture(GPT_2)
    assert (shape.hidden_size, shape.num_layers, shape.query_width, shape.context_length) == (768, 12, 768, 1024)
    assert shape.active_width == 3072


def test_only_the_chosen_experts_are_active() -> None:
    assert parse_architecture(MIXTRAL_8X7B).active_width == 2 * 14336
    assert parse_architecture(QWEN3_30B_A3B).active_width == 8 * 768


def test_a_window_that_is_switched_off_is_none() -> None:
    assert parse_architecture(GEMMA_2_2B).sliding_window == 4096
    window = {"sliding_window": 4096, "use_sliding_window": False}
    assert parse_architecture({**QWEN3_30B_A3B, **window}).sliding_window is None


def test_what_the_config_leaves_out_is_read_off_the_tensors() -> None:
    config = {"hidden_size": 64, "num_hidden_layers": 1}
    with pytest.raises(WeightsError, match="gives no num_attention_heads"):
        parse_architecture(config)
    tensors = [
        tensor_info("model.vision_tower.layers.0.self_attn.k_proj.weight", "F32", (999, 64)),
        tensor_info("model.embed_tokens.weight", "F32", (500, 64)),
        tensor_info("model.layers.0.self_attn.q_proj.weight", "F32", (128, 64)),
        tensor_info("model.layers.0.self_attn.k_proj.weight", "F32", (32, 64)),
    ]
    shape = parse_architecture(config, tensors)
    assert (shape.vocab_size, shape.query_width, shape.key_width) == (500, 128, 32)


def test_gguf_metadata_becomes_a_config() -> None:
    config = config_from_gguf(
        {
            "general.architecture": "qwen3",
            "qwen3.block_count": 28,
            "qwen3.embedding_length": 1024,
            "qwen3.attention.head_count": 16,
            "qwen3.attention.head_count_kv": 8,
            "qwen3.attention.key_length": 128,
            "qwen3.feed_forward_length": 3072,
            "qwen3.context_length": 40960,
            "tokenizer.ggml.tokens#": 151936,
        }
    )
    shape = parse_architecture(config)
    assert (shape.num_layers, shape.key_width, shape.query_width) == (28, 1024, 2048)
    assert (shape.vocab_size, shape.context_length, shape.active_width) == (151936, 40960, 3072)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"a": NaN}', '{"a": 1, "a": 2}', "[" * 100_000])
def test_a_config_that_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(WeightsError, match=r"config\.json"):
        read_config(tmp_path)


@given(config=st.dictionaries(st.sampled_from(_NAMES), _VALUES, max_size=12))
def test_whatever_a_config_says_it_is_a_shape_or_one_error(config: dict[str, Any]) -> None:
    try:
        shape = parse_architecture(config)
    except WeightsError:
        return
    assert shape.num_layers > 0
    assert shape.query_width > 0
    json.dumps(shape.name)
