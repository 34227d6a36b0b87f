"""From a spec to a model in memory, with progress.

GGUF files are unpacked once to bfloat16 safetensors in the weights cache, because unpacking takes seconds and
reading safetensors takes a fraction of one. Importing this module imports torch and transformers, which takes
seconds too: the engine does so on the instance's own thread.
"""

from __future__ import annotations

import functools
import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import torch
import transformers
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer, modeling_gguf_pytorch_utils

from engine.errors import ConsoleError, WeightsError
from engine.inference import attention
from engine.models.packing import can_pack, pack_linears
from engine.models.spec import ModelInfo, ModelSpec
from engine.weights.cache import WeightsCache
from engine.weights.integrity import check_folder, check_gguf
from engine.weights.sources import Source, locate

transformers.utils.logging.set_verbosity_error()

Progress = Callable[[str, float | None], None]


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model ready to run, with what the runner needs to know of it."""

    name: str
    model: Any
    tokenizer: Any
    info: ModelInfo
    cache_shape: attention.CacheShape
    end_ids: frozenset[int]


def load_model(spec: ModelSpec, cache: WeightsCache, on_progress: Progress) -> LoadedModel:
    """Load `spec`; `on_progress(stage, fraction)` is called as it goes, the fraction None where it is not known.

    Raises:
        WeightsError: the files are missing, damaged or of a refused kind, or the engine cannot run the model.
    """
    began = time.perf_counter()
    source = locate(spec.source)
    device, dtype = choose_placement(spec)
    folder = _prepare_folder(source, cache, on_progress)
    files = check_folder(folder)
    on_progress("loading weights", 0.0)
    model, tokenizer = _read(folder, dtype, device, on_progress)
    info = ModelInfo(
        architecture=type(model).__name__,
        num_parameters=sum(parameter.numel() for parameter in model.parameters()),
        weights_bytes=sum(parameter.nbytes for parameter in model.parameters()),
        dtype=str(dtype).removeprefix("torch."),
        device=str(device),
        vocab_size=model.get_output_embeddings().weight.shape[0],
        context_length=_context_length(model.config),
        cache_bytes_per_token=(shape := _cache_shape(model, dtype, device)).bytes_per_token,
        loaded_s=time.perf_counter() - began,
        revision=_revision(source, files),
    )
    if can_pack(device, dtype):
        pack_linears(model)
    return LoadedModel(spec.name or source.name, model, tokenizer, info, shape, _end_ids(model, tokenizer))


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


def _prepare_folder(source: Source, cache: WeightsCache, on_progress: Progress) -> Path:
    if source.folder is not None:
        return source.folder
    file = source.gguf_file
    if file is None:
        raise WeightsError(f"{source.name} has neither a folder nor a GGUF file")
    check_gguf(file)
    return cache.folder_for(file, lambda folder: _convert_gguf(file, folder, on_progress))


def _convert_gguf(file: Path, folder: Path, on_progress: Progress) -> None:
    """Unpack a GGUF file to bfloat16 safetensors."""
    on_progress("unpacking GGUF, once", None)
    where = {"pretrained_model_name_or_path": str(file.parent), "gguf_file": file.name}
    with _reported(on_progress, "unpacking GGUF, once"), _parsed_once():
        try:
            tokenizer = AutoTokenizer.from_pretrained(**where)
            model = AutoModelForCausalLM.from_pretrained(
                **where, dtype=torch.bfloat16, quantization_config=transformers.GgufConfig(dequantize=True)
            )
        except ConsoleError:
            raise
        except Exception as error:  # parsers of damaged files raise whatever they stumble over
            raise WeightsError(f"{file} cannot be read as a model: {_first_line(error)}") from error
        _save(model, tokenizer, folder)


def _save(model: Any, tokenizer: Any, folder: Path) -> None:
    try:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    except SafetensorError as error:
        raise WeightsError(
            f"cannot write the unpacked weights to {folder.parent}: {_first_line(error)}; free space there or set "
            "CONSOLE_HOME to another folder"
        ) from error


def _read(folder: Path, dtype: torch.dtype, device: torch.device, on_progress: Progress) -> tuple[Any, Any]:
    try:
        with _reported(on_progress, "loading weights"):
            tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
            both: Any = AutoModelForCausalLM.from_pretrained(
                str(folder),
                dtype=dtype,
                device_map={"": str(device)} if device.type == "cuda" else None,
                attn_implementation="sdpa",
                local_files_only=True,
                use_safetensors=True,
                output_loading_info=True,
            )
    except ConsoleError:
        raise
    except Exception as error:  # parsers of damaged files raise whatever they stumble over
        raise WeightsError(f"{folder} cannot be loaded: {_first_line(error)}") from error
    model, found = both
    if missing := sorted(found["missing_keys"]):
        raise WeightsError(
            f"{folder} lacks {len(missing)} of the model's tensors ({missing[0]}): fetch its .safetensors files again"
        )
    if not tokenizer.is_fast:
        raise WeightsError(f"{folder} has only a slow tokenizer; a tokenizer.json is needed to stream text")
    return model.eval(), tokenizer


def _cache_shape(model: Any, dtype: torch.dtype, device: torch.device) -> attention.CacheShape:
    config = model.config.get_text_config()
    num_heads = config.num_attention_heads
    return attention.CacheShape(
        num_layers=config.num_hidden_layers,
        num_kv_heads=getattr(config, "num_key_value_heads", None) or num_heads,
        head_dim=getattr(config, "head_dim", None) or config.hidden_size // num_heads,
        dtype=dtype,
        device=device,
    )


def _context_length(config: Any) -> int:
    length = getattr(config.get_text_config(), "max_position_embeddings", None)
    if not length:
        raise WeightsError("the model's config names no context length (max_position_embeddings)")
    return int(length)


def _end_ids(model: Any, tokenizer: Any) -> frozenset[int]:
    named = model.generation_config.eos_token_id
    ids = named if isinstance(named, list) else [named]
    return frozenset(int(token_id) for token_id in [*ids, tokenizer.eos_token_id] if token_id is not None)


def _revision(source: Source, files: list[Path]) -> str:
    """What tells two versions of a model apart on this machine: the GGUF file's digest, else one over the config and
    the names, sizes and times of the weights, because reading them all takes seconds a gigabyte."""
    if source.gguf_file is not None:
        return files[0].parent.name[:12]
    digest = hashlib.sha256((files[0].parent / "config.json").read_bytes())
    for file in files:
        stat = file.stat()
        digest.update(f"{file.name}|{stat.st_size}|{stat.st_mtime_ns}".encode())
    return digest.hexdigest()[:12]


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


@contextmanager
def _reported(on_progress: Progress, stage: str) -> Iterator[None]:
    """Send transformers' own progress bars to `on_progress` instead of the terminal. Its reader of GGUF files takes
    tqdm's bar past the hook. Process-wide: loads take turns."""

    def hook(_factory: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> _ProgressBar:
        return _ProgressBar(on_progress, stage, *args, **kwargs)

    logging: Any = transformers.utils.logging
    gguf_reader: Any = modeling_gguf_pytorch_utils
    previous, previous_bar = logging.set_tqdm_hook(hook), gguf_reader.tqdm
    gguf_reader.tqdm = functools.partial(_ProgressBar, on_progress, stage)
    try:
        yield
    finally:
        logging.set_tqdm_hook(previous)
        gguf_reader.tqdm = previous_bar


@contextmanager
def _parsed_once() -> Iterator[None]:
    """transformers parses a GGUF file's header three times, for tokenizer, config and weights, and builds the table of
    tensor names for every module: within this context each is done once, which halves the wait. Process-wide, as above.
    """
    package: Any = gguf
    originals = {name: getattr(package, name) for name in ("GGUFReader", "get_tensor_name_map")}
    for name, original in originals.items():
        setattr(package, name, functools.cache(original))
    try:
        yield
    finally:
        for name, original in originals.items():
            setattr(package, name, original)


class _ProgressBar:
    """What transformers needs of tqdm, reporting to a callback."""

    def __init__(self, on_progress: Progress, stage: str, iterable: Any = None, total: int | None = None, **_: Any):
        self._iterable = iterable
        self._total = total if total is not None else (len(iterable) if hasattr(iterable, "__len__") else None)
        self._done = 0
        self._report: Callable[[float | None], None] = lambda fraction: on_progress(stage, fraction)

    def __iter__(self) -> Iterator[Any]:
        for item in self._iterable:
            yield item
            self.update()

    def __enter__(self) -> _ProgressBar:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def update(self, count: int = 1) -> None:
        self._done += count
        self._report(self._done / self._total if self._total else None)

    def set_postfix(self, *_: Any, **__: Any) -> None:
        """Details of the current tensor: not shown."""

    def set_description(self, *_: Any, **__: Any) -> None:
        """The stage's name is ours."""

    def refresh(self) -> None:
        """Nothing is drawn here."""

    def close(self) -> None:
        """The next stage reports for itself."""
