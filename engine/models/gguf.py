"""GGUF files, unpacked once to bfloat16 safetensors: unpacking takes seconds, reading safetensors a fraction of one."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gguf
import torch
import transformers
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer

from engine.errors import ConsoleError, WeightsError
from engine.models.failures import first_line
from engine.models.progress import Progress, bars_told
from engine.models.release import release_memory

_STAGE = "unpacking GGUF, once"


def convert_gguf(file: Path, folder: Path, on_progress: Progress) -> None:
    """Unpack a GGUF file into `folder`, and give back what that took.

    Raises:
        WeightsError: the file is no model, or the folder cannot be written.
    """
    on_progress(_STAGE, None)
    try:
        _convert(file, folder, on_progress)
    finally:
        release_memory()  # all of it was needed for this alone, and the caller goes on to load


def _convert(file: Path, folder: Path, on_progress: Progress) -> None:
    where = {"pretrained_model_name_or_path": str(file.parent), "gguf_file": file.name}
    with bars_told(lambda fraction: on_progress(_STAGE, fraction)), _parsed_once():
        try:
            tokenizer = AutoTokenizer.from_pretrained(**where)
            model = AutoModelForCausalLM.from_pretrained(
                **where, dtype=torch.bfloat16, quantization_config=transformers.GgufConfig(dequantize=True)
            )
        except ConsoleError:
            raise
        except Exception as error:  # parsers of damaged files raise whatever they stumble over
            raise WeightsError(f"{file} cannot be read as a model: {first_line(error)}") from error
        save_unpacked(model, tokenizer, folder)


def save_unpacked(model: Any, tokenizer: Any, folder: Path) -> None:
    """Write model and tokenizer; WeightsError where there is no room."""
    try:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    except SafetensorError as error:
        raise WeightsError(
            f"cannot write the unpacked weights to {folder.parent}: {first_line(error)}; free space there or set "
            "CONSOLE_HOME to another folder"
        ) from error


@contextmanager
def _parsed_once() -> Iterator[None]:
    """transformers parses a GGUF file's header three times, for tokenizer, config and weights, and builds the table of
    tensor names for every module: within this context each is done once, which halves the wait. Process-wide, so
    loads take turns.
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
