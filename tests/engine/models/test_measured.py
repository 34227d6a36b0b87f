from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.inference.attention import SequenceCache
from engine.inference.compiled.compiler import can_compile
from engine.models.budget import Budget
from engine.models.comparison import Comparison, Measured, compare
from engine.models.loader import LoadedModel, load_model
from engine.models.measured import measure_loaded
from engine.models.plan import MemoryPlan, plan_source
from engine.models.run_lines import Demand
from engine.models.spec import ModelSpec
from engine.weights.store import plain_weights
from tests.conftest import weights_cache_folder
from tests.fakes import save_tiny_llama

_HAS_COMPILER = can_compile()
_MEDIUM = {
    "vocab_size": 32_000,
    "hidden_size": 1_024,
    "intermediate_size": 2_816,
    "num_hidden_layers": 8,
    "num_attention_heads": 16,
    "num_key_value_heads": 4,
    "initializer_range": 0.02,
}


def _plan(folder: Path, dtype: str, *, can_compile: bool = _HAS_COMPILER) -> MemoryPlan:
    budget = Budget("cpu", 1 << 50, "a test's", can_compile=can_compile)
    return plan_source(ModelSpec(str(folder), device="cpu", dtype=dtype), budget, Demand(100, 3))  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("is_tied", [False, True])
def test_every_tensor_is_predicted_exactly(tmp_path: Path, dtype: str, is_tied: bool) -> None:
    folder = save_tiny_llama(tmp_path / "model", tie_word_embeddings=is_tied)
    spec = ModelSpec(str(folder), device="cpu", dtype=dtype)  # type: ignore[arg-type]
    loaded = load_model(spec, plain_weights(tmp_path / "weights"), lambda _stage, _fraction: None)
    plan = _plan(folder, dtype)
    caches = [SequenceCache(loaded.cache_shape, 100) for _ in range(3)]
    measured = measure_loaded(loaded, [cache.capacity for cache in caches])
    assert plan.num_parameters == loaded.info.num_parameters
    assert plan.cache_bytes_per_token == loaded.info.cache_bytes_per_token
    assert plan.cache_bytes == measured.cache_bytes
    # the rotary tables, which no file holds, are the rest
    assert 0 <= measured.weights_bytes - plan.weights_bytes < 1_000


def test_a_tied_head_counts_once_unless_it_is_packed(tmp_path: Path) -> None:
    folder = save_tiny_llama(tmp_path / "model", tie_word_embeddings=True)
    table = 258 * 64
    assert _plan(folder, "float32", can_compile=True).weights_bytes == 2 * _plan(folder, "bfloat16").weights_bytes
    assert (
        _plan(folder, "float32", can_compile=False).weights_bytes - 2 * _plan(folder, "bfloat16").weights_bytes
        == 4 * table
    )


def test_what_a_checkpoint_quantized_with_torchao_takes(tiny_folder: Path, tmp_path: Path) -> None:
    from torchao.quantization import Int8WeightOnlyConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer, TorchAoConfig

    quantized = AutoModelForCausalLM.from_pretrained(
        str(tiny_folder), dtype="bfloat16", quantization_config=TorchAoConfig(Int8WeightOnlyConfig())
    )
    quantized.save_pretrained(tmp_path / "int8")
    AutoTokenizer.from_pretrained(str(tiny_folder)).save_pretrained(tmp_path / "int8")
    plan = _plan(tmp_path / "int8", "bfloat16")
    spec = ModelSpec(str(tmp_path / "int8"), device="cpu", dtype="bfloat16")
    measured = measure_loaded(load_model(spec, plain_weights(tmp_path / "cache"), lambda _stage, _fraction: None))
    assert plan.weights_bytes == pytest.approx(measured.weights_bytes, rel=0.1)
    assert any("quantized already (torchao)" in note for note in plan.notes)


def test_rows_of_the_comparison(tiny: LoadedModel, tiny_folder: Path) -> None:
    plan = _plan(tiny_folder, "float32")
    rows = compare(plan, measure_loaded(tiny, [SequenceCache(tiny.cache_shape, 64).capacity]))
    assert [row.what for row in rows] == ["weights", "KV cache", "weights and KV cache"]
    assert rows[1].predicted_bytes == rows[1].measured_bytes == 64 * tiny.cache_shape.bytes_per_token
    grown = compare(plan, Measured("cpu", 1_000, 0, 0, 2_000))
    assert (grown[-1].what, grown[-1].measured_bytes) == ("weights and KV cache, by the process", 2_000)


def test_error_is_relative_to_what_was_measured() -> None:
    assert Comparison("weights", 110, 100).error_ratio == pytest.approx(0.1)
    assert Comparison("weights", 90, 100).error_ratio == pytest.approx(-0.1)
    assert Comparison("KV cache", 5, 0).error_ratio is None


def _probe(spec: dict[str, Any], demand: Demand, tiny_folder: Path, weights: Path) -> dict[str, Any]:
    arguments = [json.dumps(spec), str(demand.context_tokens), str(demand.concurrency), str(weights), str(tiny_folder)]
    command = [sys.executable, "-m", "tests.engine.models.loading_probe", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr[-2_000:]
    found: dict[str, Any] = json.loads(done.stdout)
    print(spec, {what: f"{row['error_ratio']:+.2%}" for what, row in found["rows"].items()})
    return found


def _assert_right(found: dict[str, Any]) -> None:
    assert found["num_parameters"][0] == found["num_parameters"][1]
    assert found["cache_bytes_per_token"][0] == found["cache_bytes_per_token"][1]
    assert found["cache_bytes"][0] == found["cache_bytes"][1]
    for row in found["rows"].values():
        assert abs(row["error_ratio"]) <= 0.10, found["rows"]


@pytest.mark.slow
@pytest.mark.model
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_sample_takes_what_was_planned(tiny_folder: Path, dtype: str) -> None:
    spec = {"source": "sample", "device": "cpu", "dtype": dtype}
    _assert_right(_probe(spec, Demand(1_000, 6), tiny_folder, weights_cache_folder()))


@pytest.mark.slow
@pytest.mark.model
@pytest.mark.timeout(600)
@pytest.mark.parametrize("scheme", [None, "int8-weight", "int8-dynamic", "int8-static", "int4-weight"])
def test_the_peak_of_loading_is_what_was_planned(tiny_folder: Path, scheme: str | None) -> None:
    """Where weights are converted and packed, or quantized: nothing of the model is a page of its file."""
    spec = {"source": "sample", "device": "cpu", "dtype": "bfloat16" if scheme else "float32", "quantization": scheme}
    planned, measured = _probe(spec, Demand(1_000), tiny_folder, weights_cache_folder())["loading_bytes"]
    assert planned == pytest.approx(measured, rel=0.1)


@pytest.mark.slow
@pytest.mark.model
@pytest.mark.timeout(600)
def test_the_peak_of_unpacking_is_what_was_planned(tiny_folder: Path, tmp_path: Path) -> None:
    """Of a GGUF file that was not unpacked yet, where what comes later takes less."""
    spec = {"source": "sample", "device": "cpu", "dtype": "bfloat16", "quantization": "int4-weight"}
    planned, measured = _probe(spec, Demand(1_000), tiny_folder, tmp_path / "weights")["loading_bytes"]
    assert planned == pytest.approx(measured, rel=0.1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dtype", "is_tied"), [("float32", True), ("float32", False), ("bfloat16", True), ("float16", False)]
)
def test_a_random_model_takes_what_was_planned(tiny_folder: Path, tmp_path: Path, dtype: str, is_tied: bool) -> None:
    """Some 120 to 160 million parameters."""
    folder = save_tiny_llama(tmp_path / "medium", tie_word_embeddings=is_tied, **_MEDIUM)
    spec = {"source": str(folder), "device": "cpu", "dtype": dtype}
    _assert_right(_probe(spec, Demand(2_000, 4), tiny_folder, tmp_path / "weights"))


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["int8-weight", "int4-weight"])
def test_a_quantized_model_takes_what_was_planned(tiny_folder: Path, tmp_path: Path, scheme: str) -> None:
    folder = save_tiny_llama(tmp_path / "medium", **_MEDIUM)
    spec = {"source": str(folder), "device": "cpu", "dtype": "bfloat16", "quantization": scheme}
    _assert_right(_probe(spec, Demand(2_000, 4), tiny_folder, tmp_path / "weights"))


@pytest.mark.gpu
@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_a_model_on_a_gpu_takes_what_was_planned(tiny_folder: Path, tmp_path: Path, dtype: str) -> None:
    """Some 1.2 thousand million parameters: 2.4 and 4.8 GB."""
    large = {**_MEDIUM, "hidden_size": 2_048, "intermediate_size": 8_192, "num_hidden_layers": 18}
    folder = save_tiny_llama(tmp_path / "large", **large)
    spec = {"source": str(folder), "device": "cuda", "dtype": dtype}
    _assert_right(_probe(spec, Demand(8_000, 4), tiny_folder, tmp_path / "weights"))
    assert torch.cuda.is_available()


@pytest.mark.gpu
@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["int8-weight", "int8-dynamic", "int8-static", "fp8-weight", "fp8-dynamic"])
def test_the_peak_of_quantizing_on_a_gpu_is_what_was_planned(tiny_folder: Path, tmp_path: Path, scheme: str) -> None:
    """Few and wide layers, so that the one in hand counts, and what serves afterwards."""
    wide = {**_MEDIUM, "hidden_size": 4_096, "intermediate_size": 14_336, "num_hidden_layers": 2}
    folder = save_tiny_llama(tmp_path / "wide", **wide)
    spec = {"source": str(folder), "device": "cuda", "dtype": "bfloat16", "quantization": scheme}
    found = _probe(spec, Demand(2_000, 4), tiny_folder, tmp_path / "weights")
    planned, measured = found["loading_bytes"]
    assert planned == pytest.approx(measured, rel=0.1)
    _assert_right(found)
