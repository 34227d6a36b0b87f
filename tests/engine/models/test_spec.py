from __future__ import annotations

from dataclasses import FrozenInstanceError

import pytest

from engine.errors import WeightsError
from engine.models.spec import ModelSpec, resolve_attention
from engine.weights.sources import SAMPLE


def test_the_default_is_the_sample_wherever_it_fits() -> None:
    assert ModelSpec() == ModelSpec(SAMPLE, None, "auto", "auto")


def test_a_spec_is_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        ModelSpec().source = "other"  # type: ignore[misc]


def test_attention_is_fused_unless_asked_otherwise() -> None:
    assert [resolve_attention(asked) for asked in ("auto", "sdpa", "eager")] == ["sdpa", "sdpa", "eager"]
    with pytest.raises(WeightsError, match=r"^attention is 'flash', .*: choose auto, sdpa or eager$"):
        resolve_attention("flash")  # type: ignore[arg-type]
