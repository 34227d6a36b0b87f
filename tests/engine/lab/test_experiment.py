"""What a plan is refused for, and the results' names."""

from __future__ import annotations

from dataclasses import replace

import pytest

from engine.errors import InvalidRequestError
from engine.lab import Variant, VariantResult
from engine.lab.experiment import Experiment
from tests.engine.lab.builders import HALF, ORIGINAL, PLAN, experiment


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"source": " "}, "the source is empty"),
        ({"variants": ()}, "no variant is chosen"),
        ({"variants": (Variant("auto"),)}, "auto is there twice"),
        (
            {"variants": tuple(Variant("bfloat16") for _ in range(17))},
            "variants is 17; it must be at least 1 and at most",
        ),
        ({"prompts": ()}, "prompts is 0; it must be at least 1"),
        ({"prompts": ("  ",)}, "a prompt in characters is 0"),
        ({"prompts": ("x" * 4_001,)}, "4,001"),
        ({"text": "   "}, "the text's length in characters is 0"),
        ({"num_text_tokens": 63}, "text tokens is 63; it must be at least 64 and at most 16,384"),
        ({"repeats": 0}, "repeats is 0"),
        ({"answer_tokens": 0}, "answers is 0"),
        ({"speed_tokens": 1}, "speed runs is 1"),
    ],
)
def test_a_plan_out_of_bounds_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        replace(PLAN, **changes).check()  # type: ignore[arg-type]


def test_a_good_plan_passes_and_begins_with_the_original() -> None:
    PLAN.check()
    assert PLAN.all_variants() == (PLAN.reference, *PLAN.variants)


def test_auto_is_named_by_what_it_came_to() -> None:
    assert ORIGINAL.label == "float32"
    assert VariantResult(Variant()).label == "auto"
    assert HALF.label == "bfloat16"


def test_the_reference_of_an_experiment() -> None:
    assert experiment().reference is ORIGINAL
    assert Experiment("none", 0.0, PLAN).reference is None
