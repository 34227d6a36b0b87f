"""Run as a child process, because only a fresh one shows what a model adds: load it, fill the caches of a demand, and
print planned and measured bytes as JSON.

    python -m tests.engine.models.loading_probe SPEC_JSON CONTEXT_TOKENS CONCURRENCY WEIGHTS_CACHE TINY_FOLDER
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from engine.inference import attention
from engine.models.budget import read_budget
from engine.models.comparison import compare
from engine.models.loader import LoadedModel, load_model
from engine.models.measured import mark_memory, measure_loaded
from engine.models.plan import plan_source
from engine.models.planner import unpacked_folder
from engine.models.process_memory import read_anonymous_bytes
from engine.models.quantization import ability_of
from engine.models.release import weights_apart
from engine.models.run_lines import Demand
from engine.models.schemes import Ability, default_quantization
from engine.models.spec import ModelSpec, Scheme
from engine.telemetry import Nvml
from engine.weights.store import plain_weights


def main(spec: ModelSpec, demand: Demand, weights: Path, tiny: Path) -> dict[str, Any]:
    """Planned and measured bytes of one spec and demand."""
    cache = plain_weights(weights)
    _touch(load_model(ModelSpec(str(tiny), device=spec.device), cache, _ignore))  # what is made once a process
    unpacked = partial(unpacked_folder, cache=cache.cache)
    plan = plan_source(spec, read_budget(spec, Nvml()), demand, unpacked)
    mark = mark_memory(plan.budget.device)
    with _peak_watched(plan.budget.device) as peak, weights_apart():
        loaded = load_model(spec, cache, _ignore)
    _touch(loaded)
    caches = [_fill(loaded, demand.context_tokens) for _ in range(demand.concurrency)]
    measured = measure_loaded(loaded, [cache.capacity for cache in caches], mark)
    return {
        "num_parameters": [plan.num_parameters, loaded.info.num_parameters],
        "cache_bytes": [plan.cache_bytes, measured.cache_bytes],
        "cache_bytes_per_token": [plan.cache_bytes_per_token, loaded.info.cache_bytes_per_token],
        "loading_bytes": [plan.loading_bytes, peak.num_bytes - mark],
        "rows": {row.what: {**asdict(row), "error_ratio": row.error_ratio} for row in compare(plan, measured)},
    }


@dataclass
class _Peak:
    num_bytes: int = 0


@contextmanager
def _peak_watched(device: str) -> Iterator[_Peak]:
    """The most memory that the process holds on the device within the block: on a GPU as torch's allocator counts it,
    else its own, looked at every two milliseconds."""
    peak, is_over = _Peak(), threading.Event()
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats(device)
        yield peak
        peak.num_bytes = torch.cuda.max_memory_allocated(device)
        return

    def watch() -> None:
        while not is_over.wait(0.002):
            peak.num_bytes = max(peak.num_bytes, read_anonymous_bytes())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield peak
    finally:
        is_over.set()
        watcher.join()


@torch.inference_mode()
def _touch(loaded: LoadedModel) -> None:
    """Read every weight once: those that are mapped from the file come into memory only then."""
    loaded.model(input_ids=torch.arange(9, device=loaded.cache_shape.device)[None] + 1, use_cache=False)


def _fill(loaded: LoadedModel, num_tokens: int) -> attention.SequenceCache:
    shape = loaded.cache_shape
    cache = attention.SequenceCache(shape, num_tokens)
    rows = torch.ones(shape.num_kv_heads, num_tokens, shape.head_dim, dtype=shape.dtype, device=shape.device)
    for layer in range(shape.num_layers):
        cache.write(layer, 0, rows, rows)
    return cache


def _ability(spec: ModelSpec) -> Ability:
    return ability_of(torch.device("cuda:0" if spec.device == "cuda" else "cpu"))


def _ignore(_stage: str, _fraction: float | None) -> None:
    """No progress is shown."""


if __name__ == "__main__":
    _, fields, context_tokens, concurrency, weights_folder, tiny_folder = sys.argv
    asked = Demand(int(context_tokens), int(concurrency))
    given = ModelSpec(**json.loads(fields))
    if isinstance(given.quantization, str):
        given = replace(given, quantization=default_quantization(Scheme(given.quantization), _ability(given)))
    print(json.dumps(main(given, asked, Path(weights_folder), Path(tiny_folder))))
