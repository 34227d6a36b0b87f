from __future__ import annotations

from dataclasses import FrozenInstanceError

import pytest

from engine.models.spec import ModelSpec
from engine.weights.sources import SAMPLE


def test_the_default_is_the_sample_wherever_it_fits() -> None:
    assert ModelSpec() == ModelSpec(SAMPLE, None, "auto", "auto")


def test_a_spec_is_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        ModelSpec().source = "other"  # type: ignore[misc]
