"""Tiny random models that take images, each with its processor, as model folders; and pictures to show them."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.fakes import byte_tokenizer

IMAGE_SIZE = 56  # a side of `picture`, in pixels
_MARKS = ("<|image|>", "<|video|>", "<|begin_of_image|>", "<|end_of_image|>", "<|begin_of_video|>", "<|end_of_video|>")
_QWEN_MARKS = ("<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>")
# As GLM-4.1V's: text as it is, or parts in their order.
_GLM_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% if message.content is string %}{{ message.content }}{% else %}{% for item in message.content %}"
    "{% if item.type == 'image' %}<|begin_of_image|><|image|><|end_of_image|>{% else %}{{ item.text }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# As Llava's and SmolVLM's: parts alone.
_LLAVA_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{% for item in message.content %}"
    "{% if item.type == 'image' %}<|image|>{% else %}{{ item.text }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_TEXT: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2048,
    "initializer_range": 0.15,
    "bos_token_id": None,
}
# Of a tower that is shown 16 pixels a side at a time.
_TILE_VISION: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 16,
    "patch_size": 4,
    "initializer_range": 0.15,
}
_SECTIONS = {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [2, 3, 3], "partial_rotary_factor": 1.0}


def picture(seed: int = 0, width: int = IMAGE_SIZE, height: int = IMAGE_SIZE) -> Any:
    """Coloured noise, as PIL has pictures; another for each seed."""
    import numpy as np
    from PIL import Image

    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def picture_bytes(seed: int = 0, width: int = IMAGE_SIZE, height: int = IMAGE_SIZE, kind: str = "PNG") -> bytes:
    """The file of that picture."""
    file = io.BytesIO()
    picture(seed, width, height).save(file, kind)
    return file.getvalue()


def save_tiny_glm4v(folder: Path) -> Path:
    """AutoGLM's architecture: positions in three dimensions, as many tokens of an image as its size asks for."""
    vision = {
        "depth": 2,
        "hidden_size": 32,
        "num_heads": 2,
        "out_hidden_size": 64,
        "intermediate_size": 48,
        "patch_size": 4,
        "image_size": 32,
        "initializer_range": 0.15,
    }
    size = {"shortest_edge": 2 * 16 * 16, "longest_edge": 2 * 64 * 64}
    return save_glm4v(folder, {**_TEXT, "rope_parameters": _SECTIONS}, vision, size)


def save_glm4v(
    folder: Path, text: dict[str, Any], vision: dict[str, Any], size: dict[str, int], dtype: Any = None
) -> Path:
    """The same of another shape; `size` bounds an image in pixels, times two for its frames. In float32, or `dtype`."""
    from transformers import Glm4vConfig, Glm4vForConditionalGeneration
    from transformers.models.glm4v.image_processing_pil_glm4v import Glm4vImageProcessorPil

    tokenizer = _tokenizer(_GLM_TEMPLATE)
    named = {
        f"{name}_token_id": tokenizer.convert_tokens_to_ids(mark)
        for name, mark in zip(
            ("image", "video", "image_start", "image_end", "video_start", "video_end"), _MARKS, strict=True
        )
    }
    config = Glm4vConfig(text_config={**_ends(tokenizer), "bos_token_id": None, **text}, vision_config=vision, **named)
    images = Glm4vImageProcessorPil(patch_size=vision["patch_size"], size=size)
    return _save(folder, lambda: Glm4vForConditionalGeneration(config), images, tokenizer, dtype=dtype)


def save_tiny_llava(folder: Path) -> Path:
    """Plain positions, and 16 tokens for any image."""
    from transformers import CLIPImageProcessorPil, LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor

    tokenizer = _tokenizer(_LLAVA_TEMPLATE)
    config = LlavaConfig(
        text_config={**_TEXT, **_ends(tokenizer), "model_type": "llama"},
        vision_config={**_TILE_VISION, "model_type": "clip_vision_model"},
        image_token_index=tokenizer.convert_tokens_to_ids("<|image|>"),
        vision_feature_layer=-1,
    )
    images = CLIPImageProcessorPil(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16})
    processor = LlavaProcessor(
        images,
        tokenizer,
        patch_size=4,
        vision_feature_select_strategy="default",
        image_token="<|image|>",
        num_additional_image_tokens=1,
    )
    return _save(folder, lambda: LlavaForConditionalGeneration(config), processor)


def save_tiny_qwen(folder: Path, version: str) -> Path:
    """Qwen2-VL, Qwen2.5-VL and Qwen3-VL ("2", "2.5", "3", "3_moe"); the last adds features of an image in later layers
    too."""
    import transformers
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    name = {"2": "Qwen2VL", "2.5": "Qwen2_5_VL", "3": "Qwen3VL", "3_moe": "Qwen3VLMoe"}[version]
    tokenizer = _tokenizer(_GLM_TEMPLATE, _QWEN_MARKS)
    named = zip(("image", "video", "vision_start", "vision_end"), _QWEN_MARKS, strict=True)
    vision = {"depth": 2, "hidden_size": 32, "num_heads": 2, "patch_size": 4, "initializer_range": 0.15}
    vision |= {
        "2": {"embed_dim": 32, "hidden_size": 64, "mlp_ratio": 2},
        "2.5": {"out_hidden_size": 64, "intermediate_size": 48, "window_size": 32, "fullatt_block_indexes": [1]},
        "3": {
            "out_hidden_size": 64,
            "intermediate_size": 48,
            "num_position_embeddings": 64,
            "deepstack_visual_indexes": [0],
        },
    }[version.removesuffix("_moe")]
    text = {**_TEXT, **_ends(tokenizer), "head_dim": 16, "rope_parameters": _SECTIONS}
    if version == "3_moe":
        text |= {"moe_intermediate_size": 32, "num_experts": 4, "num_experts_per_tok": 2}
    config = getattr(transformers, f"{name}Config")(
        text_config=text,
        vision_config=vision,
        **{f"{what}_token_id": tokenizer.convert_tokens_to_ids(mark) for what, mark in named},
    )
    images = Qwen2VLImageProcessorPil(patch_size=4, size={"shortest_edge": 256, "longest_edge": 4096})
    build = getattr(transformers, f"{name}ForConditionalGeneration")
    return _save(folder, lambda: build(config), images, tokenizer)


def save_tiny_gemma(folder: Path) -> Path:
    """Gemma 3: the 16 tokens of an image see each other both ways, in a layer with a window of 12 tokens and in one
    without."""
    from transformers import Gemma3Config, Gemma3ForConditionalGeneration, Gemma3Processor
    from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil

    named = {"image_token": "<image_soft_token>", "boi_token": "<start_of_image>", "eoi_token": "<end_of_image>"}
    tokenizer = _tokenizer(_LLAVA_TEMPLATE, ("<start_of_image>",), named)
    text = {
        **_TEXT,
        **_ends(tokenizer),
        "head_dim": 16,
        "query_pre_attn_scalar": 16,
        "tie_word_embeddings": False,
        "sliding_window": 12,
        "layer_types": ["sliding_attention", "full_attention"],
    }
    vision = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 32,
        "patch_size": 4,
        "initializer_range": 0.15,
    }
    ids = {f"{name}_index": tokenizer.convert_tokens_to_ids(mark) for name, mark in named.items()}
    config = Gemma3Config(
        text_config=text, vision_config=vision, mm_tokens_per_image=16, tie_word_embeddings=False, **ids
    )
    images = Gemma3ImageProcessorPil(size={"height": 32, "width": 32})
    processor = Gemma3Processor(images, tokenizer, image_seq_length=16)

    def build() -> Any:
        model = Gemma3ForConditionalGeneration(config)
        model.model.multi_modal_projector.mm_input_projection_weight.data.normal_(std=0.5)  # zeros by themselves
        return model

    return _save(folder, build, processor)


def save_tiny_idefics(folder: Path, kind: str = "Idefics3") -> Path:
    """Idefics3 or SmolVLM: an image is cut into tiles of 16 pixels a side with 4 tokens each, and shown whole too."""
    import transformers
    from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil

    marks = ("<image>", "<fake_token_around_image>", "<end_of_utterance>", "<global-img>")
    tokenizer = _tokenizer(_LLAVA_TEMPLATE, marks)
    text = {**_TEXT, **_ends(tokenizer), "model_type": "llama"}
    config = getattr(transformers, f"{kind}Config")(
        text_config=text, vision_config={**_TILE_VISION}, image_token_id=tokenizer.convert_tokens_to_ids("<image>")
    )
    images = Idefics3ImageProcessorPil(size={"longest_edge": 48}, max_image_size={"longest_edge": 16})
    processor = transformers.Idefics3Processor(images, tokenizer, image_seq_len=4)
    build = getattr(transformers, f"{kind}ForConditionalGeneration")
    return _save(folder, lambda: build(config), processor)


def _tokenizer(template: str, marks: tuple[str, ...] = _MARKS, named: dict[str, str] | None = None) -> Any:
    tokenizer = byte_tokenizer()
    if named is not None:
        tokenizer._set_model_specific_special_tokens(named)
        tokenizer.add_special_tokens({"additional_special_tokens": list(named.values())})
    tokenizer.add_special_tokens({"additional_special_tokens": list(marks)})
    for theirs, mark in zip(_MARKS, marks, strict=False):
        template = template.replace(theirs, mark)
    tokenizer.chat_template = template
    return tokenizer


def _ends(tokenizer: Any) -> dict[str, Any]:
    ends = tokenizer.eos_token_id
    return {"vocab_size": len(tokenizer), "eos_token_id": ends, "pad_token_id": ends}


def _save(folder: Path, build: Callable[[], Any], *parts: Any, dtype: Any = None) -> Path:
    import torch

    state, before = torch.get_rng_state(), torch.get_default_dtype()
    torch.manual_seed(0)
    torch.set_default_dtype(dtype or torch.float32)
    model = build().to(dtype or torch.float32).eval()
    torch.set_default_dtype(before)
    torch.set_rng_state(state)
    model.save_pretrained(folder)
    for part in parts:
        part.save_pretrained(folder)
    return folder
