from __future__ import annotations

from dataclasses import fields

import pytest

from engine.api.admin.readings import InstanceAnswer
from engine.api.admin.schemas import LoadBody, QuantizationBody, QuotaBody, SpecBody
from engine.instance import InstanceInfo
from engine.models.schemes import Ability, default_quantization
from engine.models.spec import Granularity, ModelSpec, Quantization, Scheme
from engine.scheduling.quota import Quota


def test_every_field_of_the_engines_terms_is_there() -> None:
    assert set(LoadBody.model_fields) == {field.name for field in fields(ModelSpec)} | {"is_pinned"}
    assert set(QuantizationBody.model_fields) == {field.name for field in fields(Quantization)}
    assert set(InstanceAnswer.model_fields) == {field.name for field in fields(InstanceInfo)}
    assert set(QuotaBody.model_fields) == {field.name for field in fields(Quota)}


def test_a_spec_comes_through() -> None:
    body = SpecBody(
        source="org/name", device="cuda", dtype="bfloat16", context_length=9, max_running=2, attention="eager"
    )
    assert body.to_spec("n") == ModelSpec("org/name", "n", "cuda", "bfloat16", None, 9, 2, "eager")
    assert SpecBody(source="sample").to_spec() == ModelSpec("sample")


@pytest.mark.parametrize("device", ["auto", "cpu", "cuda"])
@pytest.mark.parametrize("scheme", Scheme)
def test_what_is_left_out_of_a_quantization_suits_the_scheme_and_device(scheme: Scheme, device: str) -> None:
    body = SpecBody.model_validate({"source": "x", "device": device, "quantization": {"scheme": scheme}})
    assert body.to_spec().quantization == default_quantization(scheme, Ability("cuda" if device == "cuda" else "cpu"))


def test_what_is_given_of_a_quantization_counts() -> None:
    body = QuantizationBody.model_validate(
        {
            "scheme": "int8-static",
            "granularity": "tensor",
            "is_symmetric": False,
            "keep": ["lm_head"],
            "prompts": ["Hello"],
        }
    )
    expected = Quantization(Scheme.INT8_STATIC, Granularity.TENSOR, None, False, ("lm_head",), ("Hello",))
    assert body.to_quantization("cpu") == expected
