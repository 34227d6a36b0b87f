from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import WeightsError
from engine.models.budget import Budget
from engine.models.footprint import Footprint, footprint_of
from engine.models.plan import MemoryPlan, Verdict, default_demand, plan_memory, plan_source
from engine.models.plan_text import headline, to_dict, to_json, to_text
from engine.models.run_lines import Demand
from engine.models.schemes import Ability, default_quantization, explain
from engine.models.spec import ModelSpec, Quantization, Scheme
from engine.models.weight_lines import Kind, total_bytes
from engine.weights.sources import find_source
from tests.engine.models.architectures import ALL, build_on_meta, checkpoint_of

_H100 = Budget(
    "cuda:0", 79_000_000_000, "free on GPU 0, NVIDIA H100", chunk_tokens=2_048, ability=Ability("cuda", (9, 0))
)
_LAPTOP = Budget("cpu", 12_000_000_000, "available memory", has_framework=True)
_FOOTPRINTS = {
    name: footprint_of(ALL[name], checkpoint_of(build_on_meta(ALL[name])))
    for name in ("Llama-3-8B", "GLM-4.1V-9B", "Qwen3-0.6B", "Gemma-2-2B", "Mixtral-8x7B", "DeepSeek-V2-Lite")
}
_LLAMA = _FOOTPRINTS["Llama-3-8B"]


def _plan(name: str, budget: Budget, demand: Demand | None = None, **fields: object) -> MemoryPlan:
    return plan_memory(_FOOTPRINTS[name], ModelSpec(name, **fields), budget, demand)  # type: ignore[arg-type]


def test_an_8b_fits_on_a_large_card() -> None:
    plan = _plan("Llama-3-8B", _H100, Demand(8_192, 16))
    assert plan.verdict is Verdict.FITS
    assert plan.reasons == plan.alternatives == ()
    assert plan.placement.dtype == "bfloat16"
    assert plan.weights_bytes == 2 * 8_030_261_248
    assert plan.cache_bytes_per_token == 2 * 32 * 8 * 128 * 2
    assert plan.cache_bytes == 16 * 8_192 * 131_072
    assert plan.steady_bytes == sum(line.num_bytes for line in plan.lines)
    assert plan.needed_bytes == max(plan.steady_bytes, plan.loading_bytes)


def test_int8_where_bfloat16_does_not_fit() -> None:
    plan = _plan("Llama-3-8B", replace(_H100, free_bytes=16_000_000_000), Demand(8_192, 4))
    assert plan.verdict is Verdict.FITS_INT8
    assert plan.reasons
    assert plan.alternatives[0].spec.quantization == default_quantization(Scheme.INT8_WEIGHT, _H100.ability)
    assert plan.alternatives[0].change == "bfloat16 with int8-weight"


def test_int4_where_int8_does_not_fit() -> None:
    plan = _plan("Llama-3-8B", replace(_H100, free_bytes=11_000_000_000), Demand(8_192))
    assert [item.fits for item in plan.alternatives[:2]] == [False, True]
    assert plan.verdict is Verdict.FITS_INT4


def test_calibration_runs_the_whole_model_first() -> None:
    static, dynamic = (
        _plan("Llama-3-8B", _H100, Demand(64), quantization=default_quantization(scheme, _H100.ability))
        for scheme in (Scheme.INT8_STATIC, Scheme.INT8_DYNAMIC)
    )
    assert static.steady_bytes == dynamic.steady_bytes
    assert static.loading_bytes > 16_000_000_000 > dynamic.loading_bytes


def test_what_the_device_cannot_run_does_not_fit() -> None:
    plan = _plan("Qwen3-0.6B", _LAPTOP, Demand(1_024), quantization=Quantization(Scheme.FP8_WEIGHT))
    assert "needs a GPU of compute capability 8.9" in plan.reasons[0]
    assert plan.verdict is Verdict.FITS_INT8  # bfloat16 alone keeps the scheme


def test_float32_on_a_gpu_writes_its_scores_out() -> None:
    """5.2 GB were measured with 32 heads, 2,048 rows and 8,192 keys on an H100; 0.03 GB in bfloat16."""
    parts = {
        dtype: {line.what: line.num_bytes for line in _plan("Llama-3-8B", _H100, Demand(8_192), dtype=dtype).lines}
        for dtype in ("float32", "bfloat16")
    }
    assert parts["float32"]["attention scores"] == pytest.approx(5.2e9, rel=0.05)
    assert parts["bfloat16"]["attention mask"] == pytest.approx(0.05e9, rel=0.05)


def test_eager_attention_takes_more() -> None:
    fused, eager = (_plan("Llama-3-8B", _H100, Demand(8_192), attention=name) for name in ("auto", "eager"))
    assert fused.verdict is eager.verdict is Verdict.FITS
    assert eager.steady_bytes - fused.steady_bytes == 32 * 2_048 * 8_192 * 8 + 8_192 * 2_048 * 4
    with pytest.raises(WeightsError, match=r"attention is 'flash'.*: choose auto, sdpa or eager"):
        _plan("Llama-3-8B", _H100, Demand(8_192), attention="flash")


@pytest.mark.parametrize("ability", [Ability(), Ability("cuda", (8, 0))])
def test_what_is_proposed_can_run(ability: Ability) -> None:
    budget = replace(_LAPTOP if ability.kind == "cpu" else _H100, free_bytes=1_500_000_000, ability=ability)
    plan = _plan("Qwen3-0.6B", budget, Demand(4_096), dtype="bfloat16")
    chosen = [item.spec.quantization for item in plan.alternatives if item.spec.quantization is not None]
    assert chosen
    assert not any(explain(quantization, ability) for quantization in chosen)


def test_bfloat16_comes_first_on_a_cpu() -> None:
    plan = _plan("Qwen3-0.6B", replace(_LAPTOP, free_bytes=4_700_000_000), Demand(2_048))
    assert plan.placement.dtype == "float32"
    assert plan.verdict is Verdict.FITS_BFLOAT16
    assert plan.alternatives[0].spec.dtype == "bfloat16"


def test_fewer_requests_or_less_context_where_caches_are_the_trouble() -> None:
    plan = _plan("Qwen3-0.6B", _LAPTOP, Demand(4_096, 64), dtype="bfloat16")
    assert plan.verdict is Verdict.FITS_CONCURRENCY
    fewer = next(item for item in plan.alternatives if item.verdict is Verdict.FITS_CONCURRENCY)
    shorter = next(item for item in plan.alternatives if item.verdict is Verdict.FITS_CONTEXT)
    assert 1 <= fewer.demand.concurrency < 64
    assert 256 <= shorter.demand.context_tokens < 4_096
    assert shorter.spec.context_length == shorter.demand.context_tokens
    more = replace(fewer.demand, concurrency=fewer.demand.concurrency + 1)
    assert _plan("Qwen3-0.6B", _LAPTOP, more, dtype="bfloat16").reasons
    longer = replace(shorter.demand, context_tokens=shorter.demand.context_tokens + 64)
    assert _plan("Qwen3-0.6B", _LAPTOP, longer, dtype="bfloat16").reasons


def test_several_changes_are_proposed_only_where_one_is_not_enough() -> None:
    plan = _plan("Qwen3-0.6B", replace(_LAPTOP, free_bytes=3_000_000_000), Demand(32_768, 8))
    assert plan.verdict is Verdict.FITS_REDUCED
    (fitting,) = [item for item in plan.alternatives if item.fits]
    assert fitting.demand.concurrency == 1
    assert "instead of 8 requests" in fitting.change


def test_what_does_not_fit_at_all() -> None:
    plan = _plan("Mixtral-8x7B", _LAPTOP)
    assert plan.verdict is Verdict.DOES_NOT_FIT
    assert not any(item.fits for item in plan.alternatives)
    assert all(item.reasons for item in plan.alternatives)
    assert (
        "experts are no linear layers"
        in _plan("Mixtral-8x7B", _H100, quantization=Quantization(Scheme.INT8_WEIGHT)).notes[0]
    )


def test_the_setting_for_caches_binds() -> None:
    bound = replace(_H100, kv_cache_gib=1.0)
    plan = _plan("Llama-3-8B", bound, Demand(8_192, 2))
    assert plan.cache_limit_bytes == 1 << 30
    assert plan.reasons == ("KV caches take 2.15 GB, 1.07 GB are kept for them (CONSOLE_KV_CACHE_GIB)",)
    assert _plan("Llama-3-8B", bound, Demand(8_192, 1)).verdict is Verdict.FITS


@pytest.mark.parametrize(
    ("name", "fields", "is_compiled"),
    [
        ("Qwen3-0.6B", {}, True),
        ("Qwen3-0.6B", {"attention": "sdpa"}, True),
        ("Qwen3-0.6B", {"attention": "eager"}, False),
        ("Qwen3-0.6B", {"dtype": "float16"}, False),
        ("Mixtral-8x7B", {}, False),
    ],
)
def test_steps_are_compiled_where_loading_compiles_them(name: str, fields: dict[str, str], is_compiled: bool) -> None:
    plan = _plan(name, replace(_LAPTOP, can_compile=True), Demand(1_000), **fields)
    assert plan.placement.is_compiled is is_compiled
    assert not _plan(name, _LAPTOP, Demand(1_000), **fields).placement.is_compiled


def test_the_image_encoder_is_counted() -> None:
    plan = _plan("GLM-4.1V-9B", _H100, Demand(8_192))
    parts = {line.what: line.num_bytes for line in plan.lines}
    assert parts["vision encoder, linear layers"] > 1_000_000_000
    assert parts["image encoder's activations"] > 500_000_000
    none = _plan("GLM-4.1V-9B", _H100, Demand(8_192, image_tokens=0))
    assert "image encoder's activations" not in [line.what for line in none.lines]


def test_notes_tell_what_the_numbers_do_not() -> None:
    assert "look back 4,096 tokens only" in _plan("Gemma-2-2B", _H100).notes[0]
    latent = _plan("DeepSeek-V2-Lite", _H100, Demand(4_096))
    assert f"{27 * 576 * 2:,} B a token" in latent.notes[0]
    assert latent.cache_bytes_per_token == 27 * 16 * (192 + 128) * 2
    assert "9,000 are asked" in _plan("Llama-3-8B", _H100, Demand(9_000)).notes[0]


def test_the_framework_is_counted_once_a_process() -> None:
    first = _plan("Qwen3-0.6B", replace(_LAPTOP, has_framework=False))
    later = _plan("Qwen3-0.6B", _LAPTOP)
    assert total_bytes(first.lines, Kind.FRAMEWORK) - total_bytes(later.lines, Kind.FRAMEWORK) > 300_000_000


def test_a_demand_of_its_own() -> None:
    assert default_demand(_LLAMA, ModelSpec()) == Demand(8_192, 1)
    assert default_demand(_LLAMA, ModelSpec(context_length=500, max_running=3)) == Demand(500, 3)
    nameless: Footprint = replace(_LLAMA, architecture=replace(_LLAMA.architecture, context_length=None))
    with pytest.raises(WeightsError, match="names no context length"):
        default_demand(nameless, ModelSpec())


_SIZES = st.integers(64, 20_000)


@given(context=_SIZES, concurrency=st.integers(1, 64), free_gb=st.integers(1, 200), more=st.integers(0, 5_000))
def test_more_needs_more_and_what_is_said_to_fit_fits(context: int, concurrency: int, free_gb: int, more: int) -> None:
    budget = replace(_H100, free_bytes=free_gb * 10**9)
    plan = _plan("Llama-3-8B", budget, Demand(context, concurrency))
    larger = _plan("Llama-3-8B", budget, Demand(context + more, concurrency + more % 7))
    assert larger.steady_bytes >= plan.steady_bytes
    assert (plan.verdict is Verdict.FITS) == (not plan.reasons) == (not plan.alternatives)
    for item in plan.alternatives:
        again = plan_memory(_LLAMA, item.spec, budget, item.demand)
        assert item.fits == (again.verdict is Verdict.FITS)
        assert item.needed_bytes == again.needed_bytes
    if any(item.fits for item in plan.alternatives):
        assert plan.verdict in {item.verdict for item in plan.alternatives if item.fits}


def test_text_and_json_say_the_same() -> None:
    plan = _plan("Llama-3-8B", replace(_H100, free_bytes=16_000_000_000), Demand(8_192, 4))
    text, data = to_text(plan), json.loads(to_json(plan))
    assert text.startswith("Llama-3-8B fits with int8 weights on cuda:0 (bfloat16 with int8-weight): ")
    assert headline(plan) in text
    assert data["headline"] == headline(plan)
    assert data["verdict"] == "fits with int8 weights"
    assert data["fits"] is False
    assert data["needed_bytes"] == plan.needed_bytes == to_dict(plan)["needed_bytes"]
    assert sum(line["num_bytes"] for line in data["lines"]) == plan.steady_bytes
    for line in plan.lines:
        assert line.how in text


def test_a_folder_is_planned_from_its_headers(tiny_folder: Path) -> None:
    plan = plan_source(ModelSpec(str(tiny_folder), "chat"), _LAPTOP)
    assert (plan.name, plan.architecture, plan.verdict) == ("chat", "LlamaForCausalLM", Verdict.FITS)


@pytest.mark.model
def test_the_sample_counts_its_unpacking_until_that_is_done() -> None:
    before = plan_source(ModelSpec(dtype="bfloat16"), _LAPTOP)
    after = plan_source(ModelSpec(dtype="bfloat16"), _LAPTOP, converted=lambda file: file.parent)
    assert before.name == find_source("sample").name
    assert "unpacking the GGUF file, once" in [line.what for line in before.loading]
    header = 49_152 * 3_500  # its largest tensor comes first and takes nothing beyond the end
    assert before.loading_bytes - after.loading_bytes == pytest.approx(header, rel=0.03)
    assert before.steady_bytes == after.steady_bytes


@pytest.mark.model
def test_planning_does_not_import_torch() -> None:
    code = (
        "import sys; from engine.models.budget import read_budget; from engine.models.plan import plan_source; "
        "from engine.models.plan_text import to_text; from engine.models.spec import ModelSpec; "
        "from engine.telemetry import Nvml; to_text(plan_source(ModelSpec(), read_budget(ModelSpec(), Nvml()))); "
        "print([name for name in ('torch', 'transformers', 'streamlit') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
