"""Quantized models on disk, and back with the same bits.

A folder as any other (config.json, safetensors, tokenizer), but that its weights are stored as they are multiplied.
config.json says how under `console_quantization`; nothing is pickled, and names of classes come from lists of ours
and of torchao's, never from the file.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import accelerate
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn
from torchao.prototype.safetensors.safetensors_support import flatten_tensor_state_dict, unflatten_tensor_state_dict
from transformers import AutoConfig, GenerationConfig

from engine.errors import WeightsError
from engine.models import bitsandbytes
from engine.models.auto import auto_class
from engine.models.quantization import tie_embeddings
from engine.models.quantized_linear import KINDS, Int4Linear, QuantizedLinear
from engine.models.schemes import BITSANDBYTES
from engine.models.spec import Granularity, Quantization, Scheme

KEY = "console_quantization"
_FORMAT = 1
_FILE = "model.safetensors"


@dataclass(frozen=True, slots=True)
class SavedQuantization:
    """What a folder says of its weights. `layers` are the quantized modules and their kinds; `capability` is the
    instruction set that 4-bit weights were laid out for."""

    quantization: Quantization
    dtype: torch.dtype
    device: str
    layers: dict[str, str]
    capability: str
    num_parameters: int


def save_quantized(loaded: Any, folder: Path) -> Path:
    """Write a quantized `LoadedModel` to `folder`, which then loads like any other model folder.

    Raises:
        WeightsError: the model is not quantized, or the folder cannot be written.
    """
    quantization = loaded.info.quantization
    if quantization is None:
        raise WeightsError(f"{loaded.name} is not quantized: load it with a quantization first")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if quantization.scheme in BITSANDBYTES:
            bitsandbytes.save(loaded.model, loaded.tokenizer, folder)
        else:
            _save(loaded, quantization, folder)
        if loaded.vision is not None:
            loaded.vision.save(folder)
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"cannot write {folder}: {error}; free space there or choose another folder") from error
    return folder


def _save(loaded: Any, quantization: Quantization, folder: Path) -> None:
    layers = {name: m.kind for name, m in loaded.model.named_modules() if isinstance(m, QuantizedLinear)}
    about = {
        "format": _FORMAT,
        **asdict(quantization),
        "dtype": loaded.info.dtype,
        "device": torch.device(loaded.info.device).type,
        "layers": layers,
        "capability": torch.backends.cpu.get_cpu_capability(),
        "num_parameters": loaded.info.num_parameters,
    }
    tensors, metadata = _flatten(loaded.model)
    loaded.tokenizer.save_pretrained(folder)
    loaded.model.generation_config.save_pretrained(folder)
    save_file(tensors, folder / _FILE, metadata={"format": "pt", **metadata})
    config = {**loaded.model.config.to_dict(), KEY: about}
    (folder / "config.json").write_text(json.dumps(config, indent=2, default=str))


def _flatten(model: nn.Module) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """The tensors by name, each stored once, and torchao's description of its own."""
    tensors: dict[str, torch.Tensor] = {}
    inside: set[str] = set()
    for name, module in model.named_modules():
        if isinstance(module, QuantizedLinear):
            inside.add(f"{name}.")
            tensors |= {f"{name}.{part}": tensor for part, tensor in module.tensors().items()}
    theirs: dict[str, Any] = {}
    for name, parameter in model.named_parameters():
        (tensors if type(parameter.data) is torch.Tensor else theirs)[name] = parameter.detach()
    for name, buffer in model.named_buffers():
        if name in model.state_dict() and not any(name.startswith(prefix) for prefix in inside):
            tensors[name] = buffer
    flat, metadata = flatten_tensor_state_dict(theirs) if theirs else ({}, {})
    return {name: tensor.contiguous().cpu() for name, tensor in {**tensors, **flat}.items()}, metadata


def read_saved(folder: Path) -> SavedQuantization | None:
    """How the folder's weights were quantized by `save_quantized`; None for any other folder.

    Raises:
        WeightsError: it says so in a way that this version does not read.
    """
    try:
        config = json.loads((folder / "config.json").read_text())
    except (OSError, ValueError):
        return None
    about = config.get(KEY) if isinstance(config, dict) else None
    if about is None:
        return None
    try:
        return _parse(about)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise WeightsError(
            f"{folder / 'config.json'} does not say how the weights were quantized in a way this version reads "
            f"({error}): quantize the model again"
        ) from error


def _parse(about: dict[str, Any]) -> SavedQuantization:
    if about["format"] != _FORMAT:
        raise ValueError(f"format {about['format']}, this version reads {_FORMAT}")
    dtypes = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    layers = {str(name): str(kind) for name, kind in about["layers"].items()}
    if unknown := set(layers.values()) - set(KINDS):
        raise ValueError(f"layers of kind {sorted(unknown)[0]}")
    size = about["group_size"]
    quantization = Quantization(
        scheme=Scheme(about["scheme"]),
        granularity=Granularity(about["granularity"]),
        group_size=None if size is None else int(size),
        is_symmetric=bool(about["is_symmetric"]),
        keep=tuple(map(str, about["keep"])),
        prompts=tuple(map(str, about["prompts"])),
    )
    return SavedQuantization(
        quantization,
        dtypes[about["dtype"]],
        str(about["device"]),
        layers,
        str(about["capability"]),
        int(about["num_parameters"]),
    )


def load_saved(folder: Path, saved: SavedQuantization, device: torch.device, on_bytes: Callable[[int], None]) -> Any:
    """The model of a folder that `save_quantized` wrote. `on_bytes(count)` is told what was read, and may raise.

    Raises:
        WeightsError: it was laid out for another device or CPU, or a tensor is missing.
    """
    _check_place(saved, device)
    config = AutoConfig.from_pretrained(str(folder), local_files_only=True)
    with accelerate.init_empty_weights(include_buffers=False):
        model = auto_class(config).from_config(config, dtype=saved.dtype)
    if (folder / "generation_config.json").is_file():
        model.generation_config = GenerationConfig.from_pretrained(str(folder))
    with safe_open(folder / _FILE, framework="pt") as file:
        metadata = file.metadata() or {}
        tensors = dict(_read_all(file, on_bytes))
    try:
        _fill(model, tensors, metadata, saved, device)
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise WeightsError(f"{folder / _FILE} lacks or spoils a tensor ({error}): quantize the model again") from error
    return model.eval()


def _check_place(saved: SavedQuantization, device: torch.device) -> None:
    if device.type != saved.device:
        raise WeightsError(
            f"these weights were quantized for {saved.device} and the device is {device.type}: choose device "
            f"{saved.device}, or quantize the original model again"
        )
    here = torch.backends.cpu.get_cpu_capability()
    if Int4Linear.kind in saved.layers.values() and here != saved.capability:
        raise WeightsError(
            f"these 4-bit weights are laid out for {saved.capability} and this CPU has {here}: quantize the original "
            "model again here"
        )


def _read_all(file: Any, on_bytes: Callable[[int], None]) -> Iterator[tuple[str, torch.Tensor]]:
    for name in file.keys():  # noqa: SIM118 - no mapping
        tensor: torch.Tensor = file.get_tensor(name)
        yield name, tensor
        on_bytes(tensor.nbytes)


def _fill(
    model: Any,
    tensors: dict[str, torch.Tensor],
    metadata: dict[str, str],
    saved: SavedQuantization,
    device: torch.device,
) -> None:
    for name, kind in saved.layers.items():
        parts = {key.removeprefix(f"{name}."): tensors.pop(key) for key in list(tensors) if key.startswith(f"{name}.")}
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, KINDS[kind](**parts))
    if "tensor_names" in metadata:
        theirs, tensors = unflatten_tensor_state_dict(tensors, metadata)
        tensors |= theirs
    model.load_state_dict(tensors, strict=False, assign=True)
    if not isinstance(model.get_output_embeddings(), QuantizedLinear):
        model.tie_weights()
    tie_embeddings(model, saved.dtype)
    empty = [name for name, parameter in model.named_parameters() if parameter.is_meta]
    if empty:
        raise KeyError(empty[0])
    model.to(device)
