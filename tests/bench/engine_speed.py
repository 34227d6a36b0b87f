"""The engine against its peers on one machine, in turn: the same model, prompt and number of tokens.

`model.generate` computes in float32 with the same weights; llama.cpp, where its Python package is installed, with the
4-bit weights of the file that they were unpacked from, one stream at a time as its binding has it.
"""

from __future__ import annotations

import importlib.util
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count, pairwise
from pathlib import Path

import psutil

from engine import Delta, Engine, InstanceInfo, InstanceState, Message, ModelSpec, Request, SamplingParams, Settings
from engine.models.spec import Quantization, Scheme
from tests.bench.peers import Generate, LlamaCpp
from tests.bench.results import Figure, compare

_PROMPT = "Write a long story about a dragon who lived in the mountains and liked to eat bread."
_LONG_PROMPT = "The dragon flew over the hills and ate a loaf of bread. " * 35  # some 500 tokens with the template
_NUM_TOKENS = {1: 96, 4: 96, 16: 64, 64: 32}
_NUM_PAIRS = 3
_SPECS = {"": ModelSpec(device="cpu"), "int8.": ModelSpec(device="cpu", quantization=Quantization(Scheme.INT8_WEIGHT))}
_numbers = count()


def measure(home: Path) -> Iterator[Figure]:
    """For float32 and INT8 weights: tokens a second at several streams, time to the first token of a short and of a
    long prompt, gaps between tokens, memory; with what memory and cores would allow."""
    bandwidth = _memory_bytes_per_s()
    yield Figure("roofline.memory_bytes_per_s", bandwidth, "B/s")
    yield Figure("roofline.multiply_adds_per_s", _multiply_adds_per_s(), "1/s")
    for prefix, spec in _SPECS.items():
        engine = Engine(Settings(home=home, max_running=max(_NUM_TOKENS)), lambda record: None)
        try:
            name = engine.load(spec)
            info = await_ready(engine)
            yield Figure(f"process.{prefix}rss_bytes", psutil.Process().memory_info().rss, "B")
            if info.model is not None:
                yield Figure(f"roofline.{prefix}decode.b1", bandwidth / info.model.weights_bytes, "tok/s")
            yield from _against_generate(engine, name, prefix, home)
            if importlib.util.find_spec("llama_cpp") is not None:
                yield from _against_llama(engine, name, prefix)
            gaps = _gaps_s(engine, name, 16)
            yield Figure(f"engine.{prefix}itl.b16_p50_s", statistics.median(gaps), "s")
            yield Figure(f"engine.{prefix}itl.b16_p99_s", statistics.quantiles(gaps, n=100)[-1], "s")
        finally:
            engine.close()


def _against_generate(engine: Engine, name: str, prefix: str, home: Path) -> Iterator[Figure]:
    peer = Generate(home, _PROMPT)
    for batch, num_tokens in _NUM_TOKENS.items():
        ours = partial(_speed, engine, name, batch, num_tokens)
        theirs = partial(peer.speed, batch, num_tokens)
        yield _in_turn(f"engine.{prefix}decode.b{batch}", "tok/s", ours, peer.name, theirs, more=True)
    for what, prompt in (("prefill.500_s", _LONG_PROMPT), ("ttft.idle_s", _PROMPT)):
        ours = partial(_first_s, engine, name, prompt)
        theirs = partial(peer.first_s, prompt)
        yield _in_turn(f"engine.{prefix}{what}", "s", ours, peer.name, theirs, more=False)


def _against_llama(engine: Engine, name: str, prefix: str) -> Iterator[Figure]:
    peer = LlamaCpp(_PROMPT)
    ours = partial(_speed, engine, name, 1, _NUM_TOKENS[1])
    theirs = partial(peer.speed, _NUM_TOKENS[1])
    yield _in_turn(f"engine.{prefix}decode.b1", "tok/s", ours, peer.name, theirs, more=True)
    ours, theirs = partial(_first_s, engine, name, _LONG_PROMPT), partial(peer.first_s, _LONG_PROMPT)
    yield _in_turn(f"engine.{prefix}prefill.500_s", "s", ours, peer.name, theirs, more=False)
    peer.close()


def _in_turn(
    name: str, unit: str, ours: Callable[[], float], peer: str, theirs: Callable[[], float], *, more: bool
) -> Figure:
    """After a first run of each that does not count."""
    ours(), theirs()
    pairs = [(ours(), theirs()) for _ in range(_NUM_PAIRS)]
    return compare(name, unit, [pair[0] for pair in pairs], peer, [pair[1] for pair in pairs], more=more)


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


def _request(name: str, prompt: str, num_tokens: int) -> Request:
    return Request(name, (Message("user", prompt),), SamplingParams(temperature=0.0, max_tokens=num_tokens))


def _speed(engine: Engine, name: str, batch: int, num_tokens: int) -> float:
    """Output tokens a second over all streams, from the first submission to the last token."""
    began = time.perf_counter()
    streams = [engine.stream(_request(name, _PROMPT, num_tokens)) for _ in range(batch)]
    total = sum(len(event.tokens) for stream in streams for event in stream if isinstance(event, Delta))
    elapsed = time.perf_counter() - began
    if total != batch * num_tokens:
        raise RuntimeError(f"{total} tokens came instead of {batch * num_tokens}: the comparison would not be fair")
    return total / elapsed


def _first_s(engine: Engine, name: str, prompt: str) -> float:
    """Of a prompt that begins like no other: nothing of it is kept already."""
    began = time.perf_counter()
    stream = engine.stream(_request(name, f"{next(_numbers)} {prompt}", 2))
    iterator = iter(stream)
    next(iterator)
    elapsed = time.perf_counter() - began
    for _ in iterator:
        continue
    return elapsed


def _gaps_s(engine: Engine, name: str, batch: int) -> list[float]:
    """Between the tokens of one of `batch` streams."""
    streams = [engine.stream(_request(name, _PROMPT, _NUM_TOKENS[batch])) for _ in range(batch)]
    times = [time.perf_counter() for event in streams[0] if isinstance(event, Delta) for _ in event.tokens]
    for stream in streams[1:]:
        for _ in stream:
            continue
    return [later - earlier for earlier, later in pairwise(times)]


def _memory_bytes_per_s() -> float:
    """The most that all threads of torch read together, of three times."""
    import torch

    numbers = torch.ones(150_000_000)
    return max(numbers.nbytes / _seconds(lambda: numbers.sum()) for _ in range(3))


def _multiply_adds_per_s() -> float:
    """Of float32 matrices, the most of three times."""
    import torch

    size = 1_500
    matrix = torch.ones(size, size)
    return max(size**3 / _seconds(lambda: matrix @ matrix) for _ in range(3))


def _seconds(run: Callable[[], object]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began
