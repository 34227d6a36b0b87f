"""The sample model on a CPU: unpacking its GGUF file once, loading the unpacked weights, what INT8 makes of their size,
and by how much the memory plan was off."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.bench.results import Figure

_NUM_LOADS = 5
_CONTEXT_TOKENS = 1_000
_CONCURRENCY = 6
_TIMEOUT_S = 240.0


def measure(home: Path) -> Iterator[Figure]:
    """Unpacking starts from an empty cache of its own under `home`."""
    from engine.models.loader import load_model
    from engine.models.schemes import Ability, default_quantization
    from engine.models.spec import ModelSpec, Scheme
    from engine.weights.store import plain_weights

    weights = Path(tempfile.mkdtemp(prefix="model-figures-", dir=home))
    cache = plain_weights(weights)

    def load(spec: ModelSpec) -> tuple[float, int]:
        began = time.perf_counter()
        loaded = load_model(spec, cache, lambda _stage, _fraction: None)
        return time.perf_counter() - began, loaded.info.weights_bytes

    plain = ModelSpec(device="cpu", dtype="bfloat16")
    first_s, plain_bytes = load(plain)
    load_s = statistics.median(load(ModelSpec(device="cpu"))[0] for _ in range(_NUM_LOADS))
    yield Figure("models.convert_s", first_s - load(plain)[0], "s")
    yield Figure("models.load_s", load_s, "s")
    int8 = default_quantization(Scheme.INT8_WEIGHT, Ability())
    _, int8_bytes = load(ModelSpec(device="cpu", dtype="bfloat16", quantization=int8))
    yield Figure("models.int8_bytes_ratio", int8_bytes / plain_bytes, "")
    yield Figure("models.plan_error_pct", max(_plan_errors_pct(weights, home)), "%")


def _plan_errors_pct(weights: Path, home: Path) -> Iterator[float]:
    """Of weights and KV cache together by the growth of a fresh process, without sign, in both dtypes."""
    from tests.fakes import save_tiny_llama

    tiny = save_tiny_llama(Path(tempfile.mkdtemp(prefix="model-figures-", dir=home)) / "tiny")
    for dtype in ("float32", "bfloat16"):
        spec = json.dumps({"source": "sample", "device": "cpu", "dtype": dtype})
        command = [sys.executable, "-m", "tests.engine.models.loading_probe", spec]
        command += [str(_CONTEXT_TOKENS), str(_CONCURRENCY), str(weights), str(tiny)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=True)
        rows = json.loads(done.stdout)["rows"]
        yield 100 * abs(rows["weights and KV cache, by the process"]["error_ratio"])
