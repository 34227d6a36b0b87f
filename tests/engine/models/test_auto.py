"""Models that take images: loaded by their own class, their text served where the engine's attention agrees."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    BertConfig,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    Glm4vConfig,
    Glm4vForConditionalGeneration,
    Llama4Config,
    Llama4ForConditionalGeneration,
    LlamaConfig,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
)

from engine.backend import LocalBackend
from engine.config import Settings
from engine.errors import WeightsError
from engine.inference.forward import headless
from engine.inference.image_parity import serve_images
from engine.inference.parity import check_parity
from engine.inference.request import Message, Request, SamplingParams, Timing
from engine.models.auto import auto_class, is_image_model
from engine.models.loader import LoadedModel, load_model
from engine.models.spec import Modality, ModelSpec, Quantization, Scheme
from engine.weights.store import plain_weights
from tests.fakes import FakeClock, byte_tokenizer

_TEXT: dict[str, Any] = {
    "vocab_size": 300,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2048,
    "initializer_range": 0.15,
    "pad_token_id": 257,
    "eos_token_id": 257,
    "bos_token_id": None,
}
_SECTIONS: dict[str, Any] = {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [2, 3, 3]}


def _glm4v() -> Any:
    vision = {"depth": 1, "hidden_size": 32, "num_heads": 2, "out_hidden_size": 64, "intermediate_size": 48}
    text = {**_TEXT, "rope_parameters": {**_SECTIONS, "partial_rotary_factor": 1.0}}
    return Glm4vForConditionalGeneration(Glm4vConfig(text_config=text, vision_config=vision))


def _qwen() -> Any:
    vision = {"depth": 1, "hidden_size": 32, "num_heads": 2, "out_hidden_size": 64, "intermediate_size": 48}
    text = {**_TEXT, "rope_parameters": _SECTIONS}
    return Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(text_config=text, vision_config=vision))


def _save(build: Callable[[], Any], folder: Path) -> Path:
    torch.manual_seed(0)
    build().float().eval().save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(params=[_glm4v, _qwen], ids=["glm4v", "qwen2_5_vl"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return _save(request.param, tmp_path / "image-model")


def _load(folder: Path, quantization: Quantization | None = None) -> LoadedModel:
    spec = ModelSpec(str(folder), name="m", device="cpu", quantization=quantization)
    return load_model(spec, plain_weights(folder.parent / "weights"), lambda _stage, _fraction: None)


def test_text_is_served_where_there_is_no_image_processor(folder: Path, tmp_path: Path) -> None:
    loaded = serve_images(_load(folder))
    assert check_parity(loaded) < 1e-4
    assert (loaded.info.modalities, loaded.info.served) == ((Modality.TEXT, Modality.IMAGES), (Modality.TEXT,))
    assert loaded.vision is None
    note = loaded.info.notes[0]
    assert note.startswith("This model takes images and they are not served: ")
    assert "preprocessor_config.json" in note
    assert note.endswith(". Ask it with text.")
    backend = LocalBackend(Settings(home=tmp_path, kv_cache_gib=0.1), FakeClock())
    runner = backend.start(loaded, lambda *_: None)
    params = SamplingParams(max_tokens=4, temperature=0.0, logit_bias={257: -100.0})
    timing = Timing(0.0, FakeClock().monotonic())
    sequence = backend.prepare(loaded, runner, Request("m", (Message("user", "Hi"),), params), timing)
    runner.submit(sequence)
    while runner.step():
        pass
    prompt = torch.tensor([sequence.token_ids[: sequence.num_prompt_tokens]])
    loaded.model.set_attn_implementation("sdpa")
    expected = loaded.model.generate(
        prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=4, do_sample=False, suppress_tokens=[257]
    )
    assert sequence.token_ids == expected[0].tolist()


def test_what_looks_at_pictures_is_not_quantized(folder: Path) -> None:
    loaded = _load(folder, Quantization(Scheme.INT8_WEIGHT, keep=()))
    linear = [name for name, module in loaded.model.named_modules() if type(module) is torch.nn.Linear]
    assert linear
    assert all("visual" in name for name in linear)
    check_parity(loaded)


def test_a_class_for_each_kind() -> None:
    assert auto_class(LlamaConfig()).__name__ == "AutoModelForCausalLM"
    assert not is_image_model(LlamaConfig())
    assert auto_class(Qwen2_5_VLConfig()).__name__ == "AutoModelForImageTextToText"


def test_a_model_that_is_there_with_and_without_images() -> None:
    """What its weights were saved from decides; where nothing says so, it is read without."""
    with_images = Llama4Config(architectures=["Llama4ForConditionalGeneration"])
    assert auto_class(with_images).__name__ == "AutoModelForImageTextToText"
    assert is_image_model(with_images)
    for config in (Llama4Config(), Llama4Config(architectures=["Llama4ForCausalLM"]), Gemma3TextConfig()):
        assert auto_class(config).__name__ == "AutoModelForCausalLM"


def test_llama4_embeds_text(tmp_path: Path) -> None:
    """Its `base_model` is the whole of it."""
    text = {**_TEXT, "bos_token_id": 1, "head_dim": 16, "intermediate_size_mlp": 96, "num_local_experts": 2}
    vision = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 16,
        "patch_size": 4,
        "projector_input_dim": 64,
        "projector_output_dim": 64,
        "vision_output_dim": 64,
    }
    config = Llama4Config(text_config=text, vision_config=vision)
    loaded = _load(_save(lambda: Llama4ForConditionalGeneration(config), tmp_path / "m"))
    assert type(loaded.model) is Llama4ForConditionalGeneration
    assert check_parity(loaded) < 1e-4
    model, ids = headless(loaded.model), torch.tensor([[5, 6, 7]])
    with torch.inference_mode():
        hidden = model(ids).last_hidden_state
        torch.testing.assert_close(loaded.model.get_output_embeddings()(hidden), loaded.model(ids).logits)


def test_the_text_of_gemma_alone(tmp_path: Path) -> None:
    """A checkpoint of its language model, which has no part for images."""
    text = {**_TEXT, "head_dim": 16, "sliding_window": 8}
    loaded = _load(_save(lambda: Gemma3ForCausalLM(Gemma3TextConfig(**text)), tmp_path / "m"))
    assert loaded.info.modalities == (Modality.TEXT,)
    assert check_parity(loaded) < 1e-4
    assert serve_images(loaded) is loaded


def test_a_model_that_writes_no_text() -> None:
    class Unknown(BertConfig):
        model_type = "unknown"

    with pytest.raises(WeightsError, match="models of type unknown do not write text: choose"):
        auto_class(Unknown())
