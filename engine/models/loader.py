"""From a spec to a model in memory, with progress.

Importing this module imports torch and transformers, which takes seconds: the engine does so on the instance's own
thread. Everything that loads goes through here: plain folders, GGUF files, models quantized while they load
(quantization.py) and models that were saved quantized (saved.py).
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import CONFIG_MAPPING, AutoConfig, AutoTokenizer

from engine.errors import WeightsError
from engine.inference import attention
from engine.inference.compiled.fit import why_not_compiled
from engine.inference.compiled.library import prepare
from engine.inference.vision import Vision, read_vision
from engine.models import bitsandbytes, describe
from engine.models.auto import auto_class
from engine.models.failures import check_room, first_line, one_sentence
from engine.models.gguf import convert_gguf
from engine.models.mapped_weights import copy_mapped_weights
from engine.models.packing import can_pack, pack_linears
from engine.models.progress import ByteMeter, Progress, reading_metered
from engine.models.quantization import VISION, check_quantization, quantize_model, weights_bytes
from engine.models.release import leave_out_imports
from engine.models.saved import SavedQuantization, load_saved, read_saved
from engine.models.schemes import BITSANDBYTES
from engine.models.spec import Modality, ModelInfo, ModelSpec, Passes, Quantization, Scheme, resolve_attention
from engine.weights.integrity import check_folder
from engine.weights.lease import Lease
from engine.weights.store import WeightsStore

_STAGE = "loading weights"


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model ready to run, with what the runner needs to know of it.

    Attributes:
        max_running: as the spec asks.
        lease: keeps its files in the cache for as long as the model is held.
        passes: how its forward passes are run, as inference/parity.py chose.
        vision: what shows it images; None where it takes none, or `why_no_images` says why they cannot be shown.
    """

    name: str
    model: Any
    tokenizer: Any
    info: ModelInfo
    cache_shape: attention.CacheShape
    end_ids: frozenset[int]
    max_running: int | None = None
    lease: Lease | None = None
    vision: Vision | None = None
    why_no_images: str | None = None
    passes: Passes = Passes.PACKED


@dataclass(slots=True)
class _Job:
    """One load under way."""

    folder: Path
    files: list[Path]
    device: torch.device
    dtype: torch.dtype
    quantization: Quantization | None
    on_progress: Progress
    meter: ByteMeter
    may_run_code: bool = False
    num_parameters: int = 0
    vocab_size: int = 0
    layers_left: tuple[str, ...] = ()

    @property
    def is_quantized_by_reading(self) -> bool:
        """Whether transformers quantizes each layer as it reads it."""
        return self.quantization is not None and self.quantization.scheme in BITSANDBYTES

    @property
    def is_read_whole(self) -> bool:
        """Whether weights are read as they are stored, to be quantized afterwards."""
        return self.quantization is not None and not self.is_quantized_by_reading


def load_model(spec: ModelSpec, weights: WeightsStore, on_progress: Progress) -> LoadedModel:
    """Load `spec`, fetched from where it is.

    `on_progress(stage, fraction)` is called as it goes, the fraction None where it is not known. It may raise, which
    ends the load and gives back what it took.

    Raises:
        WeightsError: the files are missing, damaged, not trusted or of a refused kind, they do not fit into memory, an
            option is out of the model's bounds, or the engine cannot run the model.
    """
    began = time.perf_counter()
    leave_out_imports()
    device, dtype = choose_placement(spec)
    if device.type == "cpu":
        prepare()
    asked_kernel = resolve_attention(spec.attention)
    if spec.quantization is not None:
        check_quantization(spec.quantization, device)
    if spec.max_running is not None and spec.max_running < 1:
        raise WeightsError(f"max_running is {spec.max_running}: at least 1 request must fit into a batch")
    fetched = weights.fetch(spec.source, convert_gguf, on_progress, CONFIG_MAPPING)
    acquired, folder = fetched.acquired, fetched.acquired.folder
    files = check_folder(folder, (weights.cache.root,))
    meter = ByteMeter(on_progress, _STAGE, sum(file.stat().st_size for file in files))
    job = _Job(folder, files, device, dtype, spec.quantization, on_progress, meter, weights.allow_remote_code)
    with one_sentence(folder):
        model, tokenizer = _load(job, spec)
        kernel, kernel_notes = describe.kernel(model, asked_kernel)
        shape = describe.cache_shape(model, job.dtype, device, kernel)
        modalities = describe.modalities(model.config)
        context_length, context_notes = describe.context_length(model.config, spec.context_length)
        info = ModelInfo(
            architecture=type(model).__name__,
            num_parameters=job.num_parameters,
            weights_bytes=weights_bytes(model),
            dtype=str(job.dtype).removeprefix("torch."),
            device=str(device),
            vocab_size=job.vocab_size,
            context_length=context_length,
            cache_bytes_per_token=shape.bytes_per_token,
            loaded_s=time.perf_counter() - began,
            revision=acquired.revision,
            quantization=job.quantization,
            read_bytes_per_s=meter.bytes_per_s,
            notes=(*fetched.warnings, *describe.notes(tokenizer, job.layers_left), *kernel_notes, *context_notes),
            attention=kernel,
            modalities=modalities,
        )
        vision, why_no_images = _read_vision(job, model, tokenizer) if Modality.IMAGES in modalities else (None, None)
        if job.quantization is None and can_pack(device, job.dtype) and _gains_from_packing(model, shape):
            pack_linears(model)
    ends = describe.end_ids(model, tokenizer)
    name = spec.name or acquired.name
    return LoadedModel(
        name, model, tokenizer, info, shape, ends, spec.max_running, acquired.lease, vision, why_no_images
    )


def choose_placement(spec: ModelSpec) -> tuple[torch.device, torch.dtype]:
    """Device and dtype for a spec, `auto` resolved."""
    has_cuda = torch.cuda.is_available()
    if spec.device == "cuda" and not has_cuda:
        raise WeightsError(
            "device is cuda, and torch sees no GPU here: choose auto or cpu, or see the environment page"
        )
    device = torch.device("cuda:0" if has_cuda and spec.device != "cpu" else "cpu")
    if spec.dtype == "auto":
        return device, torch.float32 if device.type == "cpu" else torch.bfloat16
    return device, getattr(torch, spec.dtype)


def _gains_from_packing(model: Any, shape: attention.CacheShape) -> bool:
    """Not a model that keeps a state: it runs each request by itself, and reads some weights without their layers. Nor
    one whose steps are compiled, as they read the weights as they are."""
    return not model._is_stateful and why_not_compiled(model, shape) is not None


def _load(job: _Job, spec: ModelSpec) -> tuple[Any, Any]:
    job.meter.report()
    tokenizer = _read_tokenizer(job.folder, job.may_run_code)
    saved = read_saved(job.folder)
    if saved is not None:
        return _load_saved(job, saved, spec), tokenizer
    config = AutoConfig.from_pretrained(str(job.folder), local_files_only=True, trust_remote_code=job.may_run_code)
    describe.context_length(config, spec.context_length)  # before the weights are read
    if job.quantization is not None and getattr(config, "quantization_config", None) is not None:
        raise WeightsError(f"{job.folder} is quantized already: load it without a quantization")
    stored = bitsandbytes.quantization_of(config)
    if stored is not None:
        check_quantization(stored, job.device)
        bitsandbytes.check_package()
    check_room(job.folder, _needed_bytes(job, config), job.device)
    model = _read_model(job, config)
    _note_size(job, model)
    if job.quantization is not None and job.is_read_whole:
        stage = f"quantizing to {job.quantization.scheme}"
        job.layers_left = quantize_model(
            model, tokenizer, job.quantization, job.device, job.dtype, lambda done: job.on_progress(stage, done)
        )
        copy_mapped_weights(model)  # norms of the checkpoint's own dtype would keep all of its file mapped
    job.quantization = job.quantization or stored
    return model, tokenizer


def _load_saved(job: _Job, saved: SavedQuantization, spec: ModelSpec) -> Any:
    if spec.quantization not in (None, saved.quantization):
        raise WeightsError(f"{job.folder} is quantized already, to {saved.quantization.scheme}: load it without one")
    if spec.dtype != "auto" and job.dtype != saved.dtype:
        raise WeightsError(
            f"{job.folder} was quantized with {str(saved.dtype).removeprefix('torch.')} between its layers: "
            "choose dtype auto"
        )
    check_room(job.folder, job.meter.total_bytes, job.device)

    def on_bytes(count: int) -> None:
        job.meter.count(count)
        job.meter.report()

    job.dtype, job.quantization, job.num_parameters = saved.dtype, saved.quantization, saved.num_parameters
    model = load_saved(job.folder, saved, job.device, on_bytes)
    job.meter.finish()
    job.vocab_size = model.config.get_text_config().vocab_size
    return model


def _needed_bytes(job: _Job, config: Any) -> int:
    """Bytes of the weights as they will be held; as stored, where they are quantized on their way to the device."""
    stored = getattr(config, "dtype", None)
    is_first_whole = job.quantization is None or job.quantization.scheme is Scheme.INT8_STATIC
    if not is_first_whole or not isinstance(stored, torch.dtype) or not stored.is_floating_point:
        return job.meter.total_bytes if job.device.type == "cpu" else 0
    return job.meter.total_bytes * job.dtype.itemsize // stored.itemsize


def _read_tokenizer(folder: Path, may_run_code: bool) -> Any:
    tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=may_run_code)
    if not tokenizer.is_fast:
        raise WeightsError(f"{folder} has only a slow tokenizer; a tokenizer.json is needed to stream text")
    return tokenizer


def _read_model(job: _Job, config: Any) -> Any:
    """The model in its dtype where it will run; or as it is stored, on the host, where it is to be quantized."""
    is_direct = not job.is_read_whole and job.device.type == "cuda"
    how: dict[str, Any] = {}
    if job.quantization is not None and job.is_quantized_by_reading:
        how["quantization_config"] = bitsandbytes.config_of(job.quantization, job.dtype, VISION)
    with reading_metered(job.meter):
        both: Any = auto_class(config, job.may_run_code).from_pretrained(
            str(job.folder),
            dtype="auto" if job.is_read_whole else job.dtype,
            device_map={"": str(job.device)} if is_direct else None,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=job.may_run_code,
            output_loading_info=True,
            **how,
        )
    model, found = both
    if missing := sorted(found["missing_keys"]):
        raise WeightsError(
            f"{job.folder} lacks {len(missing)} of the model's tensors ({missing[0]}): fetch its .safetensors files "
            "again"
        )
    job.meter.finish()
    return model.eval()


def _read_vision(job: _Job, model: Any, tokenizer: Any) -> tuple[Vision | None, str | None]:
    """What shows it images, or why nothing can: its text is served all the same."""
    try:
        return read_vision(job.folder, model, tokenizer, job.dtype, may_run_code=job.may_run_code), None
    except (AttributeError, ImportError, LookupError, OSError, TypeError, ValueError) as error:
        return None, first_line(error).rstrip(".:")


def _note_size(job: _Job, model: Any) -> None:
    job.num_parameters = sum(map(bitsandbytes.num_elements, model.parameters()))
    job.vocab_size = model.get_output_embeddings().weight.shape[0]
