from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.models.schemes import BITSANDBYTES, Ability, default_quantization, explain, offered_schemes
from engine.models.spec import Granularity, Quantization, Scheme

_CPU = Ability()
_HOPPER = Ability("cuda", (9, 0))
_AMPERE = Ability("cuda", (8, 0))
_TURING = Ability("cuda", (7, 5))
_FP8 = (Scheme.FP8_WEIGHT, Scheme.FP8_DYNAMIC)


@pytest.mark.parametrize("ability", [_CPU, _AMPERE, _HOPPER])
@pytest.mark.parametrize("scheme", [scheme for scheme in Scheme if scheme not in (*_FP8, *BITSANDBYTES)])
def test_defaults_can_run(scheme: Scheme, ability: Ability) -> None:
    assert explain(default_quantization(scheme, ability), ability) == ()


@pytest.mark.parametrize("scheme", _FP8)
def test_fp8_needs_the_card(scheme: Scheme) -> None:
    assert explain(default_quantization(scheme, _HOPPER), _HOPPER) == ()
    (on_cpu,) = explain(default_quantization(scheme, _CPU), _CPU)
    assert on_cpu == f"{scheme} needs a GPU of compute capability 8.9 or newer, and this is a CPU: choose int8-weight"
    (on_ampere,) = explain(default_quantization(scheme, _AMPERE), _AMPERE)
    assert "this one has 8.0" in on_ampere


@pytest.mark.parametrize(("scheme", "instead"), [("bnb-int8", "int8-weight"), ("bnb-nf4", "int4-weight")])
def test_bitsandbytes_needs_a_card_and_the_package(scheme: str, instead: str) -> None:
    with_it, without = (replace(_TURING, has_bitsandbytes=has) for has in (True, False))
    chosen = Scheme(scheme)
    assert explain(default_quantization(chosen, with_it), with_it) == ()
    on_cpu = replace(_CPU, has_bitsandbytes=True)
    assert explain(default_quantization(chosen, on_cpu), on_cpu) == (
        f"{scheme} needs an NVIDIA GPU, and this is a CPU: choose {instead}",
    )
    (missing,) = explain(default_quantization(chosen, without), without)
    assert missing == (
        f"{scheme} needs the package bitsandbytes, which is not installed here: pip install bitsandbytes==0.50.2 and "
        f"start the console again, or choose {instead}"
    )
    offered = [offered_schemes(ability) for ability in (with_it, without, on_cpu)]
    assert [chosen in schemes for schemes in offered] == [True, False, False]
    assert set(offered[1]) == set(offered[0]) - set(BITSANDBYTES)


@pytest.mark.parametrize("scheme", BITSANDBYTES)
def test_bitsandbytes_leaves_little_to_choose(scheme: Scheme) -> None:
    ability = replace(_TURING, has_bitsandbytes=True)
    default = default_quantization(scheme, ability)
    assert explain(replace(default, keep=("lm_head", "down_proj")), ability) == ()
    (output,) = explain(replace(default, keep=("down_proj",)), ability)
    assert "name lm_head among those kept" in output
    for change in ({"granularity": Granularity.TENSOR}, {"group_size": 32}, {"is_symmetric": False}):
        (reason,) = explain(replace(default, **change), ability)  # type: ignore[arg-type]
        assert f"no other: choose {scheme} without details" in reason


@pytest.mark.parametrize(
    ("quantization", "ability", "words"),
    [
        (Quantization(Scheme.INT4_WEIGHT), _CPU, "choose granularity group"),
        (
            Quantization(Scheme.INT4_WEIGHT, Granularity.GROUP, 48),
            _CPU,
            "group_size is 48; the kernels know 32, 64, 128",
        ),
        (Quantization(Scheme.INT4_WEIGHT, Granularity.GROUP), _HOPPER, "set is_symmetric to false"),
        (Quantization(Scheme.INT4_WEIGHT, Granularity.GROUP, None, False), _TURING, "this one has 7.5"),
        (Quantization(Scheme.INT8_DYNAMIC, Granularity.GROUP), _CPU, "choose granularity channel, or int8-weight"),
        (Quantization(Scheme.INT8_STATIC, is_symmetric=False), _CPU, "set is_symmetric to true"),
        (
            Quantization(Scheme.INT8_WEIGHT, Granularity.TENSOR, is_symmetric=False),
            _CPU,
            "a channel or a group",
        ),
        (Quantization(Scheme.INT8_WEIGHT, group_size=32), _CPU, "group_size 32 has no meaning"),
        (Quantization(Scheme.INT8_DYNAMIC), Ability(has_int8_products=False), "choose int8-weight"),
    ],
)
def test_what_cannot_run_says_why_and_what_to_do(quantization: Quantization, ability: Ability, words: str) -> None:
    (reason,) = explain(quantization, ability)
    assert words in reason


@given(
    st.sampled_from(Scheme),
    st.sampled_from(Granularity),
    st.one_of(st.none(), st.integers(-5, 300)),
    st.booleans(),
    st.sampled_from([_CPU, _TURING, _AMPERE, _HOPPER]),
)
def test_every_combination_has_an_answer(
    scheme: Scheme, granularity: Granularity, size: int | None, is_symmetric: bool, ability: Ability
) -> None:
    quantization = Quantization(scheme, granularity, size, is_symmetric)
    assert all(reason and "\n" not in reason for reason in explain(quantization, ability))
