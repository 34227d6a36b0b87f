"""The parameters of a model sorted by what becomes of them when it is loaded."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from engine.models.architecture import (
    CONFIG_FILE,
    CONSOLE_QUANTIZATION,
    Architecture,
    config_from_gguf,
    parse_architecture,
    parse_config,
    read_config,
)
from engine.models.headers import TensorInfo, join_tensors, read_tensors, tensors_of_gguf
from engine.models.image_sizes import PROCESSOR_FILES, image_tokens, largest_image_tokens
from engine.weights.gguf_header import GgufHeader, read_gguf_header
from engine.weights.preview import Preview

# The small files that a footprint is made of, besides the headers.
PREVIEW_TEXTS = (CONFIG_FILE, *PROCESSOR_FILES)


class Role(StrEnum):
    """What a tensor is to the model."""

    EMBEDDING = "embeddings"
    HEAD = "output head"
    LINEAR = "linear layers"
    EXPERT = "experts"
    VISION_LINEAR = "vision encoder, linear layers"
    VISION_OTHER = "vision encoder, rest"
    OTHER = "norms, biases and rest"


# The modules that transformers makes `nn.Linear` of, and so what is packed or quantized.
LINEAR_ROLES = frozenset({Role.LINEAR, Role.VISION_LINEAR, Role.HEAD})

_VISION = re.compile(r"(^|\.)(visual|vision\w*|vit|image_\w+|multi_?modal_projector|mm_projector|mmproj|connector|v)\.")
_EMBEDDING = re.compile(
    r"(^|\.)(embed_tokens\w*|wte|wpe|word_embeddings|embed_positions|position_embeddings?|tok_embeddings|embed_in"
    r"|token_embd|pos_embed(ding)?s?|embeddings?)\.weight$"
)
_HEAD = re.compile(r"(^|\.)(lm_head|embed_out|output)\.weight$")
_EXPERT = re.compile(r"\.experts\.|_exps\.|\.switch_mlp\.")
# The choice of experts is a parameter of a module of its own, and a convolution over one token is none either.
_ROUTER = re.compile(r"\.(gate|router|wg|ffn_gate_inp)\.weight$|\.shared_expert_gate\.|conv1d")
# Tables that transformers makes anew, whatever the file holds.
_NOT_LOADED = re.compile(r"rotary_emb\.inv_freq$|\.masked_bias$|^rope_(freqs|factors_\w+)\.weight$|\.attn\.bias$")
_LAYER = re.compile(r"(?:^|\.)(?:layers|h|blk|blocks)\.(\d+)\.")
# Their layers are `Conv1D`, the same as a linear layer lying on its side.
_CONV1D_MODELS = frozenset({"gpt2", "openai-gpt", "imagegpt", "decision_transformer"})
# GGUF's names of layers, so that what stays in high precision is found by transformers' names.
_GGUF_LAYERS = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "output": "lm_head",
}


@dataclass(frozen=True, slots=True)
class Parameter:
    """A tensor with its role."""

    role: Role
    tensor: TensorInfo

    @property
    def layer_name(self) -> str:
        """The module's name as transformers has it, as in `model.layers.0.mlp.up_proj`; of a GGUF file's tensor only
        its end."""
        name = self.tensor.name.removesuffix(".weight")
        return _GGUF_LAYERS.get(name.rpartition(".")[2], name)


@dataclass(frozen=True, slots=True)
class Footprint:
    """Everything a plan needs of a model's files.

    Attributes:
        parameters: what is loaded; where head and embeddings are tied they are there once, as embeddings.
        is_gguf: a GGUF file, unpacked to bfloat16 before it is loaded; `is_converted` once that is done.
    """

    architecture: Architecture
    parameters: tuple[Parameter, ...]
    is_tied: bool
    is_gguf: bool = False
    is_converted: bool = False

    @property
    def num_parameters(self) -> int:
        """Elements of all tensors; of a checkpoint quantized in packed integers fewer than the model's parameters."""
        return sum(parameter.tensor.num_elements for parameter in self.parameters)

    def count(self) -> Counter[Role]:
        """Elements by role."""
        counted: Counter[Role] = Counter()
        for parameter in self.parameters:
            counted[parameter.role] += parameter.tensor.num_elements
        return counted


def footprint_of(config: Mapping[str, Any], tensors: Iterable[TensorInfo], *, is_gguf: bool = False) -> Footprint:
    """Sort `tensors` by role.

    Raises:
        WeightsError: the config lacks a size that nothing else shows.
    """
    tensors = tuple(tensors)
    architecture = parse_architecture(config, tensors)
    if architecture.quant_method == CONSOLE_QUANTIZATION:  # stored as it is multiplied
        tensors = tuple(replace(tensor, is_cast=False) for tensor in tensors)
    parameters = [
        Parameter(_role(tensor, architecture), tensor) for tensor in tensors if _is_loaded(tensor, architecture)
    ]
    has_head = any(parameter.role is Role.HEAD for parameter in parameters)
    is_tied = not has_head or (architecture.is_tied is True and not is_gguf)
    if is_tied:
        parameters = [parameter for parameter in parameters if parameter.role is not Role.HEAD]
    return Footprint(architecture, tuple(parameters), is_tied, is_gguf)


def read_footprint(folder: Path) -> Footprint:
    """The footprint of a model folder, from config.json, headers, and the bounds of its image processor."""
    footprint = footprint_of(read_config(folder), read_tensors(folder))
    return _with_images(footprint, lambda: largest_image_tokens(folder))


def preview_footprint(preview: Preview) -> Footprint:
    """The footprint of a model that is at the hub, read with the small files of `PREVIEW_TEXTS`.

    Raises:
        WeightsError: see `footprint_of`; or its config is no JSON object, or two of its files hold the same tensor.
    """
    if preview.gguf is not None:
        return gguf_footprint(preview.gguf)
    config = parse_config(preview.texts[CONFIG_FILE], f"{CONFIG_FILE} of {preview.repo_id}", "name another revision")
    headers = ((f"{path} of {preview.repo_id}", header) for path, header in preview.headers.items())
    footprint = footprint_of(config, join_tensors(headers))
    return _with_images(footprint, lambda: image_tokens(preview.texts.get(name, b"") for name in PROCESSOR_FILES))


def _with_images(footprint: Footprint, find_tokens: Callable[[], int | None]) -> Footprint:
    """With the size of the largest image, where the model sees any."""
    vision = footprint.architecture.vision
    if vision is None:
        return footprint
    vision = replace(vision, max_tokens=find_tokens())
    return replace(footprint, architecture=replace(footprint.architecture, vision=vision))


def read_gguf_footprint(file: Path) -> Footprint:
    """The footprint of a GGUF file, from its header."""
    return gguf_footprint(read_gguf_header(file))


def gguf_footprint(header: GgufHeader) -> Footprint:
    """The footprint of a GGUF file whose header was read."""
    return footprint_of(config_from_gguf(header.keys), tensors_of_gguf(header), is_gguf=True)


def _is_loaded(tensor: TensorInfo, architecture: Architecture) -> bool:
    """False for tables that are made anew, and for the layers beyond the last that some models predict ahead with."""
    if _NOT_LOADED.search(tensor.name):
        return False
    layer = _LAYER.search(tensor.name)
    return layer is None or bool(_VISION.search(tensor.name)) or int(layer[1]) < architecture.num_layers


def _role(tensor: TensorInfo, architecture: Architecture) -> Role:
    name = tensor.name
    is_matrix = len(tensor.shape) == 2 and name.endswith(".weight")
    if _VISION.search(name):
        is_linear = is_matrix and not _EMBEDDING.search(name)
        return Role.VISION_LINEAR if is_linear else Role.VISION_OTHER
    if _EXPERT.search(name):
        return Role.EXPERT
    if _EMBEDDING.search(name):
        return Role.EMBEDDING
    if _HEAD.search(name) and _LAYER.search(name) is None:
        return Role.HEAD
    is_linear = is_matrix and not _ROUTER.search(name) and architecture.model_type not in _CONV1D_MODELS
    return Role.LINEAR if is_linear else Role.OTHER
