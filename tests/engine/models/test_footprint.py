from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from engine.errors import WeightsError
from engine.models.footprint import Footprint, Role, footprint_of, read_footprint, read_gguf_footprint
from engine.models.headers import tensor_info
from engine.weights.sources import find_source
from tests.engine.models.architectures import ALL, GLM_4_1V_9B, GPT_2, LLAMA_3_8B, build_on_meta, checkpoint_of


@pytest.fixture(scope="module", params=list(ALL))
def built(request: pytest.FixtureRequest) -> tuple[dict[str, Any], Any, Footprint]:
    """A config, transformers' own model of it without memory, and the footprint from headers."""
    config = ALL[request.param]
    model = build_on_meta(config)
    return config, model, footprint_of(config, checkpoint_of(model))


def test_parameters_are_those_of_transformers(built: tuple[dict[str, Any], Any, Footprint]) -> None:
    _, model, footprint = built
    assert footprint.num_parameters == model.num_parameters()


def test_cache_widths_are_those_of_transformers(built: tuple[dict[str, Any], Any, Footprint]) -> None:
    _, model, footprint = built
    text, shape = model.config.get_text_config(), footprint.architecture
    assert shape.num_layers == text.num_hidden_layers
    if shape.latent_width is None:
        heads = text.num_attention_heads
        kv_heads = getattr(text, "num_key_value_heads", None) or heads
        head_dim = getattr(text, "head_dim", None) or text.hidden_size // heads
        assert (shape.key_width, shape.value_width) == (kv_heads * head_dim, kv_heads * head_dim)
    else:
        assert shape.key_width == text.num_attention_heads * (text.qk_nope_head_dim + text.qk_rope_head_dim)
        assert shape.value_width == text.num_attention_heads * text.v_head_dim
        assert shape.latent_width == text.kv_lora_rank + text.qk_rope_head_dim


def test_linear_layers_are_those_of_transformers(built: tuple[dict[str, Any], Any, Footprint]) -> None:
    """They are what is packed and quantized (but for one layer of SigLIP's, of a class derived from it)."""
    _, model, footprint = built
    head = model.get_output_embeddings()
    expected = sum(
        module.weight.numel() for module in model.modules() if isinstance(module, nn.Linear) and module is not head
    )
    counted = footprint.count()
    assert counted[Role.LINEAR] + counted[Role.VISION_LINEAR] == expected
    assert counted[Role.HEAD] == (0 if footprint.is_tied else head.weight.numel())
    assert footprint.is_tied == (head.weight is model.get_input_embeddings().weight)


def test_the_vision_part_is_told_apart() -> None:
    model = build_on_meta(GLM_4_1V_9B)
    counted = footprint_of(GLM_4_1V_9B, checkpoint_of(model)).count()
    vision = sum(parameter.numel() for parameter in model.model.visual.parameters())
    assert counted[Role.VISION_LINEAR] + counted[Role.VISION_OTHER] == vision


def test_published_sizes() -> None:
    """As their makers name them."""
    sizes = {name: footprint_of(config, checkpoint_of(build_on_meta(config))) for name, config in ALL.items()}
    billions = {name: round(footprint.num_parameters / 1e9, 1) for name, footprint in sizes.items()}
    assert billions["Llama-3-8B"] == 8.0
    assert billions["Mixtral-8x7B"] == 46.7
    assert billions["Qwen3-30B-A3B"] == 30.5
    assert billions["GLM-4.1V-9B"] == 10.3
    assert billions["DeepSeek-V2-Lite"] == 15.7


def _llama(*extra: tuple[str, tuple[int, ...]], **fields: Any) -> Footprint:
    config = {**LLAMA_3_8B, "num_hidden_layers": 1, **fields}
    tensors = [
        ("model.embed_tokens.weight", (100, 8)),
        ("model.layers.0.mlp.experts.3.up_proj.weight", (8, 8)),
        ("model.layers.0.mlp.up_proj.weight", (16, 8)),
        *extra,
    ]
    return footprint_of(config, [tensor_info(name, "BF16", shape) for name, shape in tensors])


def test_what_is_not_loaded_is_not_counted() -> None:
    base = _llama().num_parameters
    assert _llama(("model.layers.0.self_attn.rotary_emb.inv_freq", (64,))).num_parameters == base
    assert _llama(("model.layers.1.eh_proj.weight", (8, 16))).num_parameters == base  # predicts a token further ahead
    assert _llama(("model.layers.0.input_layernorm.weight", (8,))).num_parameters == base + 8


def test_a_tied_head_in_the_file_is_not_counted() -> None:
    head = ("lm_head.weight", (100, 8))
    assert _llama(head, tie_word_embeddings=True).num_parameters == _llama().num_parameters
    untied = _llama(head)
    assert untied.num_parameters == _llama().num_parameters + 800
    assert not untied.is_tied
    assert _llama().is_tied


def test_experts_are_no_linear_layers() -> None:
    counted = _llama().count()
    assert (counted[Role.EXPERT], counted[Role.LINEAR], counted[Role.EMBEDDING]) == (64, 128, 800)


def test_a_folder_is_read_without_its_weights(tiny_folder: Path) -> None:
    footprint = read_footprint(tiny_folder)
    assert footprint.architecture.name == "LlamaForCausalLM"
    assert not footprint.is_tied


@pytest.mark.model
def test_the_sample_from_its_gguf_header() -> None:
    file = find_source("sample").gguf_file
    assert file is not None
    footprint = read_gguf_footprint(file)
    assert footprint.num_parameters == 134_515_008
    assert footprint.is_tied
    assert footprint.is_gguf
    assert (footprint.architecture.num_layers, footprint.architecture.key_width) == (30, 192)
    assert footprint.architecture.context_length == 8_192
    names = {parameter.layer_name for parameter in footprint.parameters if parameter.role is Role.LINEAR}
    assert "self_attn.q_proj" in names


def test_conv1d_layers_are_no_linear_layers() -> None:
    footprint = footprint_of(GPT_2, [tensor_info("transformer.h.0.attn.c_attn.weight", "F32", (768, 2304))])
    assert footprint.count() == {Role.OTHER: 768 * 2304}


def test_a_folder_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"config\.json cannot be read"):
        read_footprint(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(WeightsError, match=r"no \.safetensors file"):
        read_footprint(tmp_path)


def test_meta_tensors_take_no_memory() -> None:
    assert next(build_on_meta(LLAMA_3_8B).parameters()).device == torch.device("meta")
