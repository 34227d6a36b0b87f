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
_SIZES = {
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": 128256,
    "max_position_embeddings": 8192,
}
# (streams, prompt tokens, output tokens); the last without a peer, whose prefill of all of them at once does not fit.
_WORKLOADS = ((1, 128, 256), (4, 128, 256), (16, 128, 256), (64, 256, 256))
_OFFLINE = (512, 512, 128)
_CACHE_TOKENS = 400_000


def measure(home: Path) -> Iterator[Figure]:
    """Output tokens a second, prefill included, in bfloat16; and what a load takes beyond reading the weights."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig

    from engine.models.release import leave_out_imports

    leave_out_imports()  # as a load does
    with torch.device("cuda"):
        model = AutoModelForCausalLM.from_config(LlamaConfig(**_SIZES), dtype=torch.bfloat16).eval()
    tokenizer = AutoTokenizer.from_pretrained(str(save_tiny_llama(home / "tiny")))
    began = time.perf_counter()
    ours = _Ours(model, tokenizer, 64)
    yield Figure("engine.gpu8b.prepare_s", time.perf_counter() - began, "s")
    print(ours.name, flush=True)
    for batch, num_prompt, num_output in _WORKLOADS:
        prompts = _draw(batch, num_prompt)
        ours.speed(prompts, num_output)
        _generate(model, prompts, 4)
        pairs = [(ours.speed(prompts, num_output), _generate(model, prompts, num_output)) for _ in range(_NUM_PAIRS)]
        yield compare(f"engine.gpu8b.decode.b{batch}", "tok/s", *_apart(pairs), more=True)
    rates = [ours.speed(prompts, num_output, temperature=0.8, top_p=0.95) for _ in range(_NUM_PAIRS)]
    yield Figure("engine.gpu8b.drawn.b64", sorted(rates)[_NUM_PAIRS // 2], "tok/s")
    del ours
    many = _Ours(model, tokenizer, _OFFLINE[0])
    prompts = _draw(*_OFFLINE[:2])
    many.speed(prompts, 4)
    rates = [many.speed(prompts, _OFFLINE[2]) for _ in range(_NUM_PAIRS)]
    yield Figure("engine.gpu8b.offline.b512", sorted(rates)[_NUM_PAIRS // 2], "tok/s")


def _apart(pairs: list[tuple[float, float]]) -> tuple[tuple[float, ...], str, tuple[float, ...]]:
    ours, theirs = zip(*pairs, strict=True)
    return ours, _PEER, theirs


def _draw(batch: int, num_prompt: int) -> Any:
    import torch

    return torch.randint(5, 128_000, (batch, num_prompt), generator=torch.Generator().manual_seed(0))


class _Ours:
    """The engine's runner, as an instance holds it."""

    def __init__(self, model: Any, tokenizer: Any, max_running: int) -> None:
        import torch

        from engine.clock import SystemClock
        from engine.inference.attention import CacheShape
        from engine.inference.runner import Runner
        from engine.models.loader import LoadedModel
        from engine.models.spec import ModelInfo
        from engine.scheduling.admission import Limits

        device = torch.device("cuda:0")
        shape = CacheShape(32, 8, 128, torch.bfloat16, device)
        info = ModelInfo("LlamaForCausalLM", 0, 0, "bfloat16", "cuda:0", 128256, 8192, shape.bytes_per_token, 0, "")
        loaded = LoadedModel("dense8b", model, tokenizer, info, shape, frozenset())
        limits = Limits(max_running, max_running, 2048, _CACHE_TOKENS)
        self._clock = SystemClock()
        self._tokenizer = tokenizer
        self._runner = Runner(loaded, limits, self._clock, lambda _sequence, _finished: None)
        self.name = self._runner.stats().passes

    def speed(self, prompts: Any, num_output: int, **sampling: float) -> float:
        from engine.inference.request import Message, Request, SamplingParams, Timing
        from engine.inference.sequence import Sequence
        from engine.inference.text import Detokenizer

        params = SamplingParams(**{"temperature": 0.0, "max_tokens": num_output, **sampling})  # type: ignore[arg-type]
        began = time.perf_counter()
        sequences = []
        for prompt in prompts.tolist():
            request = Request("dense8b", (Message("user", "-"),), params)
            timing = Timing(self._clock.wall(), self._clock.monotonic())
            detokenizer = Detokenizer(self._tokenizer._tokenizer, ())
            sequences.append(Sequence(request, prompt, num_output, float("inf"), timing, detokenizer))
            self._runner.submit(sequences[-1])
        while self._runner.step():
            pass
        took_s = time.perf_counter() - began
        for sequence in sequences:
            finished = sequence.stream.finished
            if finished is None or finished.num_output_tokens != num_output:
                raise RuntimeError(f"an answer ended as {finished}")
        return len(prompts) * num_output / took_s


def _generate(model: Any, prompts: Any, num_output: int) -> float:
    import torch

    from engine.inference import attention

    ids = prompts.to("cuda")
    began = time.perf_counter()
    with torch.inference_mode(), attention.used(model, attention.REFERENCE):
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
