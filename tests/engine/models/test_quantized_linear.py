from __future__ import annotations

import pytest
import torch

from engine.models.quantized_linear import (
    KINDS,
    Int4Linear,
    Int8Embedding,
    Int8Linear,
    Int8Product,
    QuantizedLinear,
    can_multiply_int8,
    dequantize,
    input_scale_of,
)

_NEEDS_PRODUCTS = pytest.mark.skipif(not can_multiply_int8(), reason="this torch has no INT8 products")


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def _rows(num_rows: int, width: int) -> torch.Tensor:
    return torch.randn(num_rows, width, generator=_generator())


def _integers(low: int, high: int, num_out: int, num_in: int) -> torch.Tensor:
    return torch.randint(low, high, (num_out, num_in), generator=_generator(), dtype=torch.int8)


def _scales(num_out: int, num_groups: int = 1) -> torch.Tensor:
    return torch.rand(num_out, num_groups, generator=_generator()) / 100 + 1e-3


def _layer(kind: str, bias: torch.Tensor | None = None) -> tuple[QuantizedLinear, torch.Tensor]:
    """A layer of 64 inputs and 96 outputs, and the weight that it stands for."""
    if kind == "int8":
        qdata, scale = _integers(-128, 128, 96, 64), _scales(96)
        return Int8Linear(qdata, scale, None, bias), dequantize(qdata, scale, None)
    if kind == "int8 affine":
        qdata, scale, zero = _integers(-128, 128, 96, 64), _scales(96, 2), _integers(-9, 9, 96, 2)
        return Int8Linear(qdata, scale, zero, bias), dequantize(qdata, scale, zero)
    if kind == "int4":
        qdata, scale = _integers(-8, 8, 96, 64), _scales(96, 2).bfloat16().float()
        return Int4Linear.pack(qdata, scale, None, bias), dequantize(qdata, scale, None)
    qdata, scale = _integers(-64, 64, 96, 64), _scales(96)
    step = input_scale_of(torch.tensor(4.0)) if kind == "int8 static" else None
    return Int8Product(qdata, scale, bias, step), dequantize(qdata, scale, None)


_ALL = [
    "int8",
    "int8 affine",
    "int4",
    pytest.param("int8 dynamic", marks=_NEEDS_PRODUCTS),
    pytest.param("int8 static", marks=_NEEDS_PRODUCTS),
]


@pytest.mark.parametrize("num_rows", [1, 3, 40])
@pytest.mark.parametrize("has_bias", [False, True])
@pytest.mark.parametrize("kind", _ALL)
@torch.inference_mode()
def test_multiplies_by_the_weight_it_stands_for(kind: str, has_bias: bool, num_rows: int) -> None:
    bias = torch.linspace(-1, 1, 96) if has_bias else None
    layer, weight = _layer(kind, bias)
    rows = _rows(num_rows, 64)
    expected = torch.nn.functional.linear(rows, weight, bias)
    product = layer(rows[None])[0]
    assert float((product - expected).norm() / expected.norm()) < (1e-5 if kind.endswith(("int8", "affine")) else 0.02)


@pytest.mark.parametrize("kind", ["int8 dynamic", "int8 static"])
@_NEEDS_PRODUCTS
@torch.inference_mode()
def test_a_row_has_the_same_bits_in_any_company(kind: str) -> None:
    layer, _ = _layer(kind)
    rows = _rows(64, 64)
    whole = layer(rows)
    for start, stop in ((0, 1), (5, 12), (30, 64)):
        assert torch.equal(layer(rows[start:stop]), whole[start:stop])


@pytest.mark.parametrize("kind", _ALL)
@torch.inference_mode()
def test_restored_from_its_tensors_it_has_the_same_bits(kind: str) -> None:
    layer, _ = _layer(kind, torch.ones(96))
    again = KINDS[layer.kind](**{name: tensor.clone() for name, tensor in layer.tensors().items()})
    rows = _rows(5, 64)
    assert torch.equal(again(rows), layer(rows))
    assert again.weight_bytes == layer.weight_bytes


@_NEEDS_PRODUCTS
@torch.inference_mode()
def test_the_largest_products_do_not_overflow() -> None:
    layer = Int8Product(torch.full((96, 512), -64, dtype=torch.int8), torch.ones(96, 1))
    torch.testing.assert_close(layer(torch.ones(2, 512)), torch.full((2, 96), -64.0 * 512), rtol=1e-3, atol=1.0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", _ALL)
@torch.inference_mode()
def test_rows_keep_their_dtype(kind: str, dtype: torch.dtype) -> None:
    assert _layer(kind)[0](_rows(2, 64).to(dtype)).dtype is dtype


@torch.inference_mode()
def test_a_wide_layer_is_multiplied_in_slices() -> None:
    qdata, scale = _integers(-128, 128, 5_000, 512), _scales(5_000)
    rows = _rows(2, 512)
    expected = torch.nn.functional.linear(rows, dequantize(qdata, scale, None))
    torch.testing.assert_close(Int8Linear(qdata, scale)(rows), expected, rtol=1e-4, atol=1e-3)


def test_embeddings_are_the_rows_of_the_output_layer() -> None:
    qdata, scale = _integers(-128, 128, 10, 64), _scales(10)
    embeddings = Int8Embedding(Int8Linear(qdata, scale), torch.float32)
    assert torch.equal(embeddings(torch.tensor([[3, 9]]))[0], dequantize(qdata, scale, None)[[3, 9]])
    assert list(embeddings.parameters()) == []
