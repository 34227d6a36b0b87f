"""bitsandbytes on a GPU: the only module that knows the package, which is not among the requirements.

transformers loads through it: each layer is quantized as it is read, straight to the card. What it saves is a folder
that other programs load too, so `saved.py` has no part in it.
"""

from __future__ import annotations

import importlib
import logging
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import BitsAndBytesConfig

from engine.errors import WeightsError
from engine.models.progress import bars_told
from engine.models.schemes import BITSANDBYTES_PIN, Ability, default_quantization
from engine.models.spec import Quantization, Scheme

_METHOD = "bitsandbytes"


def config_of(quantization: Quantization, dtype: torch.dtype, vision: tuple[str, ...]) -> BitsAndBytesConfig:
    """transformers' config for a scheme of bitsandbytes; layers are kept by the end of their name, and those inside of
    `vision` whole.

    Raises:
        WeightsError: the package does not work on this machine.
    """
    check_package()
    kept = [*quantization.keep, *(rf"(.*\.)?{name}" for name in vision)]
    if quantization.scheme is Scheme.BNB_INT8:
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=kept)
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype, llm_int8_skip_modules=kept
    )


def check_package() -> None:
    """Raise WeightsError where bitsandbytes cannot be imported; silence what it says of every product otherwise.

    With bfloat16 it warns at each product that it multiplies float16, which parity covers.
    """
    try:
        importlib.import_module(_METHOD)
    except (ImportError, OSError, RuntimeError) as error:
        raise WeightsError(
            f"bitsandbytes cannot be imported ({error}): pip install {BITSANDBYTES_PIN} and start the console again"
        ) from error
    logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)


def quantization_of(config: Any) -> Quantization | None:
    """How the checkpoint of this config was quantized with bitsandbytes; None where it was not, or in another way than
    the two schemes."""
    stored = getattr(config, "quantization_config", None)
    fields = stored if isinstance(stored, dict) else {} if stored is None else stored.to_dict()
    if fields.get("quant_method") != _METHOD:
        return None
    is_nf4 = bool(fields.get("load_in_4bit")) and fields.get("bnb_4bit_quant_type") == "nf4"
    if not is_nf4 and not fields.get("load_in_8bit"):
        return None
    kept = tuple(name for name in fields.get("llm_int8_skip_modules") or () if name.replace("_", "").isalnum())
    default = default_quantization(Scheme.BNB_NF4 if is_nf4 else Scheme.BNB_INT8, Ability("cuda"))
    return replace(default, keep=tuple(dict.fromkeys((*kept, *default.keep))))


def save(model: Any, tokenizer: Any, folder: Path) -> None:
    """Write a model that bitsandbytes quantized, as transformers does."""
    tokenizer.save_pretrained(folder)
    with bars_told(lambda _fraction: None):
        model.save_pretrained(folder)


def num_elements(parameter: torch.Tensor) -> int:
    """Elements of the weight that a parameter stands for: bitsandbytes keeps two 4-bit ones in a byte."""
    state = getattr(parameter, "quant_state", None)
    return parameter.numel() if state is None else math.prod(state.shape)


def scale_bytes(module: nn.Module) -> int:
    """Bytes that a layer of bitsandbytes keeps beside its weight; 0 for any other layer."""
    weight = getattr(module, "weight", None)
    state = getattr(weight, "quant_state", None)
    if state is not None:
        nested = [] if state.state2 is None else [state.state2.absmax, state.state2.code]
        return sum(tensor.nbytes for tensor in (state.absmax, state.code, *nested))
    scales = getattr(weight, "SCB", None)
    if scales is None:  # they move from the weight to the layer at the first product
        scales = getattr(getattr(module, "state", None), "SCB", None)
    return 0 if scales is None else int(scales.nbytes)
