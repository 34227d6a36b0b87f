"""The runner on a GPU, on a dense 8B shape with random weights: speed only, random weights say nothing of quality."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.bench.results import Figure, compare
from tests.fakes import save_tiny_llama

_PEER = "model.generate"
_NUM_PAIRS = 3
# (streams, prompt tokens, output tokens)
_WORKLOADS = ((1, 128, 256), (64, 256, 256))


def measure(home: Path) -> Iterator[Figure]:
    """Output tokens a second, prefill included, in bfloat16."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig

    config = LlamaConfig(
        hidden_size=4096,
        intermediate_size=14336,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=8,
        head_dim=128,
        vocab_size=128256,
        max_position_embeddings=8192,
    )
    with torch.device("cuda"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).eval()
    tokenizer = AutoTokenizer.from_pretrained(str(save_tiny_llama(home / "tiny")))
    for batch, num_prompt, num_output in _WORKLOADS:
        draw = torch.Generator().manual_seed(0)
        prompts = torch.randint(5, config.vocab_size - 1, (batch, num_prompt), generator=draw)
        _run_ours(model, tokenizer, prompts, 4)
        _run_generate(model, prompts, 4)
        pairs = [
            (_run_ours(model, tokenizer, prompts, num_output), _run_generate(model, prompts, num_output))
            for _ in range(_NUM_PAIRS)
        ]
        ours, theirs = zip(*pairs, strict=True)
        yield compare(f"engine.gpu8b.decode.b{batch}", "tok/s", ours, _PEER, theirs, more=True)


def _run_ours(model: Any, tokenizer: Any, prompts: Any, num_output: int) -> float:
    import torch

    from engine.clock import SystemClock
    from engine.inference.attention import CacheShape
    from engine.inference.request import Message, Request, SamplingParams, Timing
    from engine.inference.runner import Runner
    from engine.inference.sequence import Sequence
    from engine.inference.text import Detokenizer
    from engine.models.loader import LoadedModel
    from engine.models.spec import ModelInfo
    from engine.scheduling.admission import Limits

    config, device = model.config, torch.device("cuda:0")
    shape = CacheShape(config.num_hidden_layers, config.num_key_value_heads, config.head_dim, torch.bfloat16, device)
    info = ModelInfo(
        "LlamaForCausalLM", 0, 0, "bfloat16", "cuda:0", config.vocab_size, 8192, shape.bytes_per_token, 0, ""
    )
    loaded = LoadedModel("dense8b", model, tokenizer, info, shape, frozenset())
    clock = SystemClock()
    runner = Runner(loaded, Limits(64, 64, 2048, 10**6), clock, lambda _sequence, _finished: None)
    sampling = SamplingParams(temperature=0.0, max_tokens=num_output)
    began = time.perf_counter()
    for prompt in prompts.tolist():
        request = Request("dense8b", (Message("user", "-"),), sampling)
        timing = Timing(clock.wall(), clock.monotonic())
        detokenizer = Detokenizer(tokenizer._tokenizer, ())
        runner.submit(Sequence(request, prompt, num_output, float("inf"), timing, detokenizer))
    while runner.step():
        pass
    model.set_attn_implementation("sdpa")
    return len(prompts) * num_output / (time.perf_counter() - began)


def _run_generate(model: Any, prompts: Any, num_output: int) -> float:
    import torch

    ids = prompts.to("cuda")
    began = time.perf_counter()
    with torch.inference_mode():
        model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=num_output,
            min_new_tokens=num_output,
            do_sample=False,
            pad_token_id=0,
        )
    torch.cuda.synchronize()
    return len(prompts) * num_output / (time.perf_counter() - began)
