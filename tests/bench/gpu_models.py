"""Loading and quantizing a dense 8B shape with random weights on a GPU: bytes a second from the page cache, and output
tokens a second by scheme."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from engine.models.schemes import BITSANDBYTES, HAS_BITSANDBYTES, default_quantization
from engine.models.spec import Attention, ModelSpec, Scheme
from tests.bench.results import Figure
from tests.fakes import save_tiny_llama

_SHAPE = {
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 8192,
}
_NUM_PROMPT, _NUM_OUTPUT = 128, 128
_SCHEMES = (
    None,
    *(Scheme.INT8_WEIGHT, Scheme.FP8_WEIGHT, Scheme.FP8_DYNAMIC),
    *(BITSANDBYTES if HAS_BITSANDBYTES else ()),
)


def measure(home: Path) -> Iterator[Figure]:
    """The first load pins digests; what is told is the second."""
    folder = _save_model(home / "dense8b")
    _load(folder, home, None)
    for scheme in _SCHEMES:
        name = "bfloat16" if scheme is None else scheme.value
        loaded = _load(folder, home, scheme)
        if scheme is None:
            yield Figure("models.gpu8b.load_bytes_per_s", loaded.info.read_bytes_per_s or 0.0, "B/s")
        yield Figure(f"models.gpu8b.{name}.load_s", loaded.info.loaded_s, "s")
        yield Figure(f"models.gpu8b.{name}.weights_bytes", loaded.info.weights_bytes, "B")
        for batch in (1, 8):
            _run(loaded, batch, 4)
            yield Figure(f"models.gpu8b.{name}.decode.b{batch}", _run(loaded, batch, _NUM_OUTPUT), "tok/s")
        del loaded
    loaded = _load(folder, home, None, "eager")
    _run(loaded, 1, 4)
    yield Figure("models.gpu8b.eager_attention.decode.b1", _run(loaded, 1, _NUM_OUTPUT), "tok/s")


def _save_model(folder: Path) -> Path:
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig

    save_tiny_llama(folder)  # its tokenizer serves; its weights are replaced
    config = LlamaConfig(**_SHAPE, head_dim=128, vocab_size=128256)
    with torch.device("cuda"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    for file in folder.glob("*.safetensors"):
        file.unlink()
    model.save_pretrained(folder)
    return folder


def _load(folder: Path, home: Path, scheme: Scheme | None, attention: Attention = "sdpa") -> Any:
    import torch

    from engine.models.loader import load_model
    from engine.models.quantization import ability_of
    from engine.weights.store import plain_weights

    gc.collect()
    torch.cuda.empty_cache()
    quantization = None if scheme is None else default_quantization(scheme, ability_of(torch.device("cuda:0")))
    spec = ModelSpec(str(folder), device="cuda", dtype="bfloat16", quantization=quantization, attention=attention)
    loaded = load_model(spec, plain_weights(home / "weights"), lambda _stage, _fraction: None)
    return replace(loaded, end_ids=frozenset())


def _run(loaded: Any, batch: int, num_output: int) -> float:
    import torch

    from engine.clock import SystemClock
    from engine.inference.request import Message, Request, SamplingParams, Timing
    from engine.inference.runner import Runner
    from engine.inference.sequence import Sequence
    from engine.inference.text import Detokenizer
    from engine.scheduling.admission import Limits

    clock = SystemClock()
    runner = Runner(loaded, Limits(64, 64, 2048, 10**6), clock, lambda _sequence, _finished: None)
    sampling = SamplingParams(temperature=0.0, max_tokens=num_output)
    draw = torch.Generator().manual_seed(0)
    began = time.perf_counter()
    for prompt in torch.randint(5, 250, (batch, _NUM_PROMPT), generator=draw).tolist():
        request = Request("dense8b", (Message("user", "-"),), sampling)
        detokenizer = Detokenizer(loaded.tokenizer._tokenizer, ())
        timing = Timing(clock.wall(), clock.monotonic())
        runner.submit(Sequence(request, prompt, num_output, float("inf"), timing, detokenizer))
    while runner.step():
        pass
    return batch * num_output / (time.perf_counter() - began)
