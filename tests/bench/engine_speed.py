"""The engine against `model.generate`: the same model, dtype, prompt and batch, in turn."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from engine import Delta, Engine, InstanceInfo, InstanceState, Message, ModelSpec, Request, SamplingParams, Settings
from tests.bench.results import Figure, compare

_PROMPT = "Write a long story about a dragon who lived in the mountains and liked to eat bread."
_NUM_TOKENS = 96
_NUM_PAIRS = 5
_PEER = "model.generate"


def measure(home: Path) -> Iterator[Figure]:
    """Decoding at 1 and 8 streams, time to the first token at idle, memory."""
    engine = Engine(Settings(home=home), lambda record: None)
    try:
        name = engine.load(ModelSpec())
        await_ready(engine)
        before_bytes = psutil.Process().memory_info().rss
        yield Figure("process.rss_bytes", before_bytes, "B")
        reference = _load_reference(home)
        for batch in (1, 8):
            _run_ours(engine, name, batch, 8)
            _run_generate(reference, batch, 8)
            pairs = [
                (_run_ours(engine, name, batch, _NUM_TOKENS), _run_generate(reference, batch, _NUM_TOKENS))
                for _ in range(_NUM_PAIRS)
            ]
            ours, theirs = zip(*pairs, strict=True)
            yield compare(f"engine.decode.b{batch}", "tok/s", ours, _PEER, theirs, more=True)
        firsts = [(_time_first(engine, name), _time_generate_one(reference)) for _ in range(2 * _NUM_PAIRS)]
        ours, theirs = zip(*firsts, strict=True)
        yield compare("engine.ttft.idle_s", "s", ours, _PEER, theirs, more=False)
    finally:
        engine.close()


def await_ready(engine: Engine, timeout_s: float = 180.0) -> InstanceInfo:
    """The one instance of `engine`, once it answers."""
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        (info,) = engine.instances()
        if info.state is InstanceState.READY:
            return info
        if info.state is InstanceState.FAILED:
            raise RuntimeError(info.reason)
        time.sleep(0.05)
    raise TimeoutError(f"the model was not ready within {timeout_s:g} s")


def _request(name: str, num_tokens: int) -> Request:
    return Request(name, (Message("user", _PROMPT),), SamplingParams(temperature=0.0, max_tokens=num_tokens))


def _run_ours(engine: Engine, name: str, batch: int, num_tokens: int) -> float:
    """Output tokens a second over all streams, from the first submission to the last token."""
    began = time.perf_counter()
    streams = [engine.stream(_request(name, num_tokens)) for _ in range(batch)]
    total = sum(len(event.tokens) for stream in streams for event in stream if isinstance(event, Delta))
    elapsed = time.perf_counter() - began
    if total != batch * num_tokens:
        raise RuntimeError(f"{total} tokens came instead of {batch * num_tokens}: the comparison would not be fair")
    return total / elapsed


def _time_first(engine: Engine, name: str) -> float:
    began = time.perf_counter()
    stream = engine.stream(_request(name, 2))
    iterator = iter(stream)
    next(iterator)
    elapsed = time.perf_counter() - began
    for _ in iterator:
        continue
    return elapsed


def _load_reference(home: Path) -> tuple[Any, Any]:
    """The model as transformers loads it, from the same converted weights."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    (folder,) = (path for path in (home / "weights").iterdir() if path.is_dir())
    model = AutoModelForCausalLM.from_pretrained(str(folder), dtype=torch.float32).eval()
    return model, AutoTokenizer.from_pretrained(str(folder))


def _generate(reference: tuple[Any, Any], batch: int, num_tokens: int) -> float:
    import torch

    model, tokenizer = reference
    began = time.perf_counter()
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": _PROMPT}], tokenize=False, add_generation_prompt=True
    )
    ids = tokenizer([text] * batch, add_special_tokens=False, return_tensors="pt")
    with torch.inference_mode():
        model.generate(**ids, max_new_tokens=num_tokens, min_new_tokens=num_tokens, do_sample=False)
    return time.perf_counter() - began


def _run_generate(reference: tuple[Any, Any], batch: int, num_tokens: int) -> float:
    return batch * num_tokens / _generate(reference, batch, num_tokens)


def _time_generate_one(reference: tuple[Any, Any]) -> float:
    return _generate(reference, 1, 1)
