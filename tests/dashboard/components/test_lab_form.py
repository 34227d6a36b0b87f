"""What the lab's form makes of its choices."""

from __future__ import annotations

from dashboard.components.lab_form import split_prompts
from dashboard.components.lab_variants import combine, split_able
from engine.lab import Variant
from engine.models.schemes import Ability
from engine.models.spec import Granularity, Quantization, Scheme


def test_prompts_are_the_lines_that_hold_something() -> None:
    assert split_prompts(" one \n\n two\none\n") == ("one", "two")


def test_every_combination_is_a_variant_and_sizes_count_for_groups_only() -> None:
    made = combine(Scheme.INT8_WEIGHT, [Granularity.CHANNEL, Granularity.GROUP], [32, 64], [True, False], ("lm_head",))
    labels = [variant.label for variant in made]
    assert labels == [
        "int8-weight",
        "int8-weight, affine",
        "int8-weight, group of 32",
        "int8-weight, group of 64",
        "int8-weight, group of 32, affine",
        "int8-weight, group of 64, affine",
    ]
    assert combine(Scheme.INT8_WEIGHT, [], [32], [True], ()) == []


def test_what_cannot_run_is_told_apart() -> None:
    fp8 = Variant("auto", Quantization(Scheme.FP8_WEIGHT))
    able, reasons = split_able([fp8, Variant("bfloat16")], Ability())
    assert able == [Variant("bfloat16")]
    assert reasons[0].startswith("fp8-weight is left out: ")
    assert split_able([fp8], Ability("cuda", (9, 0))) == ([fp8], [])
