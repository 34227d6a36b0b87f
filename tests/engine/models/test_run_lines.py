from __future__ import annotations

from dataclasses import replace

import pytest

from engine.models.footprint import Footprint, footprint_of
from engine.models.headers import TensorInfo, tensor_info
from engine.models.run_lines import RUNTIME_BYTES, loading_lines
from engine.models.spec import Granularity, Quantization, Scheme
from engine.models.weight_lines import Placement, total_bytes

_CONFIG = {
    "model_type": "llama",
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 96,
    "vocab_size": 100,
    "max_position_embeddings": 128,
}
_SHAPES = {"self_attn.q_proj": (64, 64), "self_attn.k_proj": (32, 64), "self_attn.v_proj": (32, 64)}
_WIDE = {"mlp.gate_proj": (96, 64), "mlp.up_proj": (96, 64), "mlp.down_proj": (64, 96)}
_PACKED = Placement("cpu", "float32")


def _footprint(vocab_size: int, *, has_head: bool) -> Footprint:
    tensors: list[TensorInfo] = [tensor_info("model.embed_tokens.weight", "BF16", (vocab_size, 64))]
    for layer in range(2):
        for name, shape in (_SHAPES | _WIDE).items():
            tensors.append(tensor_info(f"model.layers.{layer}.{name}.weight", "BF16", shape))
    if has_head:
        tensors.append(tensor_info("lm_head.weight", "BF16", (vocab_size, 64)))
    return footprint_of({**_CONFIG, "vocab_size": vocab_size, "tie_word_embeddings": not has_head}, tensors)


@pytest.mark.parametrize(
    ("vocab_size", "has_head", "largest"),
    [
        (1_000, False, 1_000 * 64),  # the tied head
        (1_000, True, 1_000 * 64),
        (10, False, 2 * 96 * 64),  # gate and up of one layer, which are packed together
    ],
)
def test_packing_holds_the_largest_product_twice(vocab_size: int, has_head: bool, largest: int) -> None:
    footprint = _footprint(vocab_size, has_head=has_head)
    lines = {line.what: line.num_bytes for line in loading_lines(footprint, _PACKED, has_framework=True)}
    assert lines["largest packed copy"] == 4 * largest
    assert lines["weights as float32"] == 4 * footprint.num_parameters
    assert sum(lines.values()) == 4 * (footprint.num_parameters + largest) + RUNTIME_BYTES


@pytest.mark.parametrize("placement", [Placement("cpu", "bfloat16"), Placement("cuda:0", "float32")])
def test_nothing_is_packed_elsewhere(placement: Placement) -> None:
    lines = loading_lines(_footprint(1_000, has_head=True), placement, has_framework=True)
    assert "largest packed copy" not in [line.what for line in lines]
    assert total_bytes(lines) > 0


@pytest.mark.parametrize(("stored", "held"), [("BF16", 12), ("F32", 8)])
def test_quantizing_peaks_at_a_tied_head_which_comes_last(stored: str, held: int) -> None:
    """Three tensors of float32, of which the first may be the file's own page, beside the layers before it."""
    footprint = _footprint(10_000, has_head=False)
    stored_so = [tensor_info(item.tensor.name, stored, item.tensor.shape) for item in footprint.parameters]
    footprint = footprint_of({**_CONFIG, "vocab_size": 10_000, "tie_word_embeddings": True}, stored_so)
    placement = Placement("cpu", "bfloat16", Quantization(Scheme.INT8_WEIGHT))
    lines = {line.what: line.num_bytes for line in loading_lines(footprint, placement, has_framework=True)}
    assert lines["one layer while it is quantized"] == held * 10_000 * 64
    outputs = 2 * (64 + 32 + 32 + 96 + 96 + 64)
    assert lines["quantized weights"] == footprint.num_parameters - 10_000 * 64 + 4 * outputs
    assert sum(lines.values()) - RUNTIME_BYTES == sum(lines[what] for what in lines if "quantized" in what)


@pytest.mark.parametrize(
    ("dtype", "quantization", "held"),
    [
        ("bfloat16", Quantization(Scheme.INT8_WEIGHT), 10),
        ("bfloat16", Quantization(Scheme.INT8_WEIGHT, is_symmetric=False), 6),
        ("float32", Quantization(Scheme.INT8_WEIGHT), 12),
        ("bfloat16", Quantization(Scheme.FP8_DYNAMIC), 15),
        ("bfloat16", Quantization(Scheme.FP8_WEIGHT, Granularity.GROUP, 32), 19),
        ("bfloat16", Quantization(Scheme.BNB_INT8), 16),
    ],
)
def test_what_a_layer_takes_while_it_is_quantized_on_a_gpu(dtype: str, quantization: Quantization, held: int) -> None:
    found = loading_lines(_footprint(10, has_head=False), Placement("cuda:0", dtype, quantization), has_framework=True)
    lines = {line.what: line.num_bytes for line in found}
    assert lines["one layer while it is quantized"] == held * 96 * 64


@pytest.mark.parametrize(("names", "held"), [("ab", 8 * 10_000), ("ba", 2 * 1_000 + 8 * 10_000)])
def test_unpacking_peaks_at_its_largest_tensor_or_at_the_end(names: str, held: int) -> None:
    """The header, an array for each of its items, is there meanwhile."""
    sizes = {"a": (100, 100), "b": (10, 100)}
    tensors = [tensor_info(f"blk.0.{name}.weight", "F16", sizes[name]) for name in names]
    footprint = footprint_of({**_CONFIG, "vocab_size": 1_000}, tensors, is_gguf=True)
    placement = Placement("cpu", "bfloat16")
    lines = {line.what: line.num_bytes for line in loading_lines(footprint, placement, has_framework=True)}
    plain = 2 * footprint.num_parameters
    assert lines["unpacking the GGUF file, once"] == 1_000 * 3_500 + held - plain
    many = [tensor_info(f"blk.{layer}.a.weight", "F16", (100, 100)) for layer in range(8)]
    grown = footprint_of({**_CONFIG, "vocab_size": 1_000, "num_hidden_layers": 8}, many, is_gguf=True)
    lines = {line.what: line.num_bytes for line in loading_lines(grown, placement, has_framework=True)}
    assert lines["unpacking the GGUF file, once"] == 1_000 * 3_500 + (7 * 2 + 8) * 10_000 - 2 * grown.num_parameters
    unpacked = loading_lines(replace(grown, is_converted=True), placement, has_framework=True)
    assert all("unpacking" not in line.what for line in unpacked)


def test_calibration_holds_all_weights_as_float32() -> None:
    """Whatever lies between the layers: on a CPU it runs so."""
    names = [f"model.layers.{layer}.self_attn.q_proj.weight" for layer in range(2)]
    tensors = [tensor_info("model.embed_tokens.weight", "BF16", (100, 512))]
    tensors += [tensor_info(name, "BF16", (512, 512)) for name in names]
    static = Placement("cpu", "bfloat16", Quantization(Scheme.INT8_STATIC, keep=("lm_head",)))
    found = loading_lines(footprint_of({**_CONFIG, "hidden_size": 512}, tensors), static, has_framework=True)
    lines = {line.what: line.num_bytes for line in found}
    assert lines["plain weights for calibration"] == 4 * (100 * 512 + 2 * 512 * 512)
    assert lines["one layer while it is quantized"] == 12 * 512 * 512
