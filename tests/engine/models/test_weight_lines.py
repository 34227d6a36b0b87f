from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer

from engine.models.footprint import Footprint, footprint_of, read_footprint
from engine.models.headers import tensor_info
from engine.models.schemes import Ability, default_quantization
from engine.models.spec import Granularity, Quantization, Scheme
from engine.models.weight_lines import Placement, product_inputs, quantized_bytes, total_bytes, weight_lines
from tests.engine.models.architectures import ALL, LLAMA_3_8B, MIXTRAL_8X7B, build_on_meta, checkpoint_of
from tests.fakes import save_tiny_llama

_MATRIX = tensor_info("w", "BF16", (256, 512))
_GPU = Placement("cuda:0", "bfloat16")
_CPU = Placement("cpu", "bfloat16")
_INT4 = {"scheme": Scheme.INT4_WEIGHT, "granularity": Granularity.GROUP, "group_size": 32, "is_symmetric": False}


@pytest.fixture(scope="module")
def llama() -> Footprint:
    return footprint_of(LLAMA_3_8B, checkpoint_of(build_on_meta(LLAMA_3_8B)))


def _total(footprint: Footprint, dtype: str = "bfloat16", device: str = "cuda:0", **fields: Any) -> int:
    quantization = Quantization(**fields) if fields else None
    return total_bytes(weight_lines(footprint, Placement(device, dtype, quantization)))


def test_plain_weights_are_elements_times_bytes(llama: Footprint) -> None:
    assert _total(llama) == 2 * 8_030_261_248
    assert _total(llama, "float32") == 4 * 8_030_261_248
    assert _total(llama, "float32", "cpu") == 4 * 8_030_261_248  # untied: packing frees the plain weights


def test_int8_halves_the_linear_layers(llama: Footprint) -> None:
    kept = 2 * 128_256 * 4_096
    linear = 8_030_261_248 - kept - 65 * 4_096
    total = _total(llama, scheme=Scheme.INT8_WEIGHT, keep=("lm_head",))
    assert total == pytest.approx(linear + 2 * (kept + 65 * 4_096), rel=2e-3)
    assert total > linear + 2 * kept


def test_the_head_is_quantized_where_nothing_is_kept(llama: Footprint) -> None:
    lines = weight_lines(llama, Placement("cuda:0", "bfloat16", Quantization(Scheme.INT8_WEIGHT, keep=())))
    assert "output head, int8-weight" in [line.what for line in lines]
    assert total_bytes(lines) < _total(llama, scheme=Scheme.INT8_WEIGHT, keep=("lm_head",))


def test_layers_to_keep_are_kept_by_the_end_of_their_name(llama: Footprint) -> None:
    fewer = _total(llama, scheme=Scheme.INT8_WEIGHT, keep=("lm_head", "down_proj"))
    head_alone = _total(llama, scheme=Scheme.INT8_WEIGHT, keep=("lm_head",))
    assert fewer - head_alone == pytest.approx(32 * 4_096 * 14_336, rel=2e-3)


def test_a_tied_head_has_a_copy_where_it_is_packed_or_quantized_on_a_gpu() -> None:
    config = ALL["Qwen3-0.6B"]
    tied = footprint_of(config, checkpoint_of(build_on_meta(config)))
    table = 151_936 * 1_024
    assert _total(tied, "float32", "cpu") - _total(tied, "float32") == 4 * table
    assert _total(tied, "bfloat16", "cpu") == _total(tied)
    kept, quantized = (_total(tied, scheme=Scheme.INT8_WEIGHT, keep=keep) for keep in (("lm_head",), ()))
    assert quantized - kept == table + 5 * 151_936


def test_experts_stay_as_they_are() -> None:
    footprint = footprint_of(MIXTRAL_8X7B, checkpoint_of(build_on_meta(MIXTRAL_8X7B)))
    assert _total(footprint, **_INT4) > 0.95 * _total(footprint)


@pytest.mark.parametrize("granularity", list(Granularity))
def test_int8_on_a_gpu_is_what_torchao_makes(granularity: Granularity) -> None:
    from torchao.quantization import Int8WeightOnlyConfig, PerGroup, PerRow, PerTensor, quantize_

    made = {Granularity.TENSOR: PerTensor(), Granularity.CHANNEL: PerRow(), Granularity.GROUP: PerGroup(64)}
    layer = nn.Sequential(nn.Linear(512, 256, bias=False, dtype=torch.bfloat16))
    quantize_(layer, Int8WeightOnlyConfig(granularity=made[granularity]))
    weight: Any = layer[0].weight
    planned = Quantization(Scheme.INT8_WEIGHT, granularity, group_size=64)
    assert quantized_bytes(_MATRIX, planned, _GPU) == sum(
        part.nbytes for part in (weight.qdata, weight.scale, weight.zero_point)
    )


def test_fp8_is_what_torchao_makes() -> None:
    from torchao.quantization import Float8WeightOnlyConfig, quantize_

    layer = nn.Sequential(nn.Linear(512, 256, bias=False, dtype=torch.bfloat16))
    quantize_(layer, Float8WeightOnlyConfig())
    weight: Any = layer[0].weight
    planned = quantized_bytes(_MATRIX, Quantization(Scheme.FP8_WEIGHT), _GPU)
    assert planned == weight.qdata.nbytes + weight.scale.nbytes


_CPU_CHOICES = [
    *(default_quantization(scheme, Ability()) for scheme in Scheme if not scheme.startswith(("fp8", "bnb"))),
    Quantization(Scheme.INT8_WEIGHT, keep=("lm_head",)),
    Quantization(Scheme.INT8_WEIGHT, Granularity.TENSOR),
    Quantization(Scheme.INT8_WEIGHT, Granularity.GROUP, 32, is_symmetric=False),
    Quantization(Scheme.INT8_WEIGHT, keep=("lm_head", "down_proj")),
]


@pytest.mark.parametrize("quantization", _CPU_CHOICES, ids=lambda item: f"{item.scheme}-{item.granularity}-{item.keep}")
@pytest.mark.parametrize("is_tied", [False, True])
def test_on_a_cpu_it_is_what_the_engine_makes(tmp_path: Path, quantization: Quantization, is_tied: bool) -> None:
    from engine.models.quantization import quantize_model, weights_bytes

    fields = {"hidden_size": 256, "intermediate_size": 512, "vocab_size": 272}
    folder = save_tiny_llama(tmp_path / "model", tie_word_embeddings=is_tied, **fields)
    model = AutoModelForCausalLM.from_pretrained(str(folder), dtype=torch.bfloat16)
    tokenizer = AutoTokenizer.from_pretrained(str(folder))
    quantize_model(model, tokenizer, quantization, torch.device("cpu"), torch.bfloat16, lambda _fraction: None)
    planned = total_bytes(weight_lines(read_footprint(folder), Placement("cpu", "bfloat16", quantization)))
    assert planned == pytest.approx(weights_bytes(model), rel=0.02)


def test_bitsandbytes_has_a_scale_a_row_or_a_group_of_64() -> None:
    nf4, int8 = (default_quantization(Scheme(name), Ability("cuda")) for name in ("bnb-nf4", "bnb-int8"))
    assert quantized_bytes(_MATRIX, int8, _GPU) == 131_072 + 256 * 4
    assert quantized_bytes(_MATRIX, nf4, _GPU) == 65_536 + 131_072 // 64 * 4 + 64
    assert quantized_bytes(tensor_info("w", "BF16", (7, 5)), nf4, _GPU) == 18 + 4 + 64


@pytest.mark.parametrize(("scheme", "measured"), [("bnb-int8", 3_411_107_840), ("bnb-nf4", 2_837_555_840)])
def test_bitsandbytes_is_what_was_measured_on_a_card(scheme: str, measured: int) -> None:
    """The dense 8B shape with six layers, on an H100."""
    config = {**LLAMA_3_8B, "num_hidden_layers": 6}
    chosen = default_quantization(Scheme(scheme), Ability("cuda"))
    lines = weight_lines(
        footprint_of(config, checkpoint_of(build_on_meta(config))), Placement("cuda:0", "bfloat16", chosen)
    )
    assert total_bytes(lines) == pytest.approx(measured, rel=1e-5)


def test_int4_is_half_a_byte_and_four_a_group() -> None:
    coarse, odd = (Quantization(Scheme.INT4_WEIGHT, Granularity.GROUP, size) for size in (128, 96))
    assert quantized_bytes(_MATRIX, coarse, _CPU) == 65_536 + 256 * 4 * 4
    assert quantized_bytes(_MATRIX, odd, _CPU) is None
    assert quantized_bytes(tensor_info("w", "BF16", (7, 512)), coarse, _CPU) is None


@given(
    scheme=st.sampled_from([scheme for scheme in Scheme if not scheme.startswith("bnb")]),
    granularity=st.sampled_from(Granularity),
    num_out=st.integers(1, 32),
    num_groups=st.integers(2, 16),
    placement=st.sampled_from([_CPU, _GPU]),
)
def test_quantized_is_smaller_than_plain(
    scheme: Scheme, granularity: Granularity, num_out: int, num_groups: int, placement: Placement
) -> None:
    tensor = tensor_info("w", "BF16", (16 * num_out, 32 * num_groups))
    planned = quantized_bytes(tensor, Quantization(scheme, granularity, group_size=32), placement)
    assert planned is not None
    is_padded = placement.is_cpu and scheme in (Scheme.INT8_DYNAMIC, Scheme.INT8_STATIC)
    most = (
        tensor.stored_bytes * product_inputs(32 * num_groups) // (32 * num_groups) if is_padded else tensor.stored_bytes
    )
    assert tensor.num_elements // 2 < planned < most
