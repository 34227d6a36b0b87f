"""Variants and their names."""

from __future__ import annotations

import pytest

from engine.lab import Variant
from engine.models.spec import Granularity, ModelSpec, Quantization, Scheme


@pytest.mark.parametrize(
    ("variant", "label"),
    [
        (Variant(), "auto"),
        (Variant("bfloat16"), "bfloat16"),
        (Variant("auto", Quantization(Scheme.INT8_WEIGHT)), "int8-weight"),
        (Variant("bfloat16", Quantization(Scheme.INT8_WEIGHT)), "int8-weight, on bfloat16"),
        (Variant("auto", Quantization(Scheme.INT8_WEIGHT, Granularity.TENSOR)), "int8-weight, per tensor"),
        (
            Variant("auto", Quantization(Scheme.INT4_WEIGHT, Granularity.GROUP, 32, False)),
            "int4-weight, group of 32, affine",
        ),
        (Variant("auto", Quantization(Scheme.INT4_WEIGHT, Granularity.GROUP)), "int4-weight, per group"),
        (Variant("auto", Quantization(Scheme.INT8_WEIGHT, keep=())), "int8-weight"),
        (Variant("auto", Quantization(Scheme.INT8_WEIGHT, keep=("a", "b"))), "int8-weight, keeps a, b"),
    ],
)
def test_label_names_what_is_not_the_default(variant: Variant, label: str) -> None:
    assert variant.label == label


def test_spec_is_what_loads_it() -> None:
    quantization = Quantization(Scheme.INT8_WEIGHT)
    spec = Variant("bfloat16", quantization).spec("/models/one", "cpu", ("hello",), "mine")
    assert spec == ModelSpec("/models/one", "mine", "cpu", "bfloat16", quantization)


def test_only_static_int8_is_given_the_prompts() -> None:
    static = Variant("auto", Quantization(Scheme.INT8_STATIC)).spec("/models/one", "cpu", ("hello",))
    assert static.quantization is not None
    assert static.quantization.prompts == ("hello",)
