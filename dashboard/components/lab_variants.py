"""Choosing variants: dtypes and quantization schemes, and the details of each scheme."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import TypeVar, get_args

import streamlit as st

from dashboard.components.formats import plain
from engine.lab import Variant
from engine.models.schemes import DEFAULT_GROUP_SIZE, GROUP_SIZES, Ability, default_quantization, explain
from engine.models.spec import Device, DType, Granularity, Quantization, Scheme
from engine.telemetry import GpuInventory

DTYPES = tuple(dtype for dtype in get_args(DType) if dtype != "auto")
EXPLANATIONS = {
    "float32": "Four bytes a weight. More precise than most models were trained in.",
    "bfloat16": "Two bytes a weight with the range of float32 and 8 significant bits.",
    "float16": "Two bytes a weight with 11 significant bits, and a range that large activations can leave.",
    Scheme.INT8_WEIGHT.value: "Weights in 8 bits, computed with in the activations' dtype. Hardly any loss.",
    Scheme.INT8_DYNAMIC.value: "Weights and activations in 8 bits; each token's activations are scaled as they come.",
    Scheme.INT8_STATIC.value: "Weights and activations in 8 bits; activations by scales calibrated beforehand.",
    Scheme.INT4_WEIGHT.value: "Weights in 4 bits, computed with in the activations' dtype. Smallest, with some loss.",
    Scheme.FP8_WEIGHT.value: "Weights as 8-bit floating point. Needs a GPU of compute capability 8.9 or newer.",
    Scheme.FP8_DYNAMIC.value: "Weights and activations as 8-bit floating point. Needs a GPU of 8.9 or newer.",
    Scheme.BNB_INT8.value: "bitsandbytes' LLM.int8: weights and activations in 8 bits, outlier columns apart.",
    Scheme.BNB_NF4.value: "bitsandbytes' NF4: weights in 4 bits that suit a normal distribution.",
}
DEFAULT_CHOICE = ("bfloat16", Scheme.INT8_WEIGHT.value)
_GRANULARITIES = {
    Granularity.TENSOR: "tensor",
    Granularity.CHANNEL: "output channel",
    Granularity.GROUP: "group of inputs",
}
_ZERO_POINTS = {True: "symmetric", False: "affine"}
_HELP = {
    "A scale for each": "Finer scales lose less and take more room.",
    "Group size": "Inputs of an output channel that share a scale; counts only where scales are for groups.",
    "Zero point": "Symmetric: scales around zero. Affine: shifted too, which fits lopsided weights better.",
}

Option = TypeVar("Option")


def choose_reference() -> Variant:
    """What the others are compared with."""
    dtype = st.selectbox(
        "Original held as",
        get_args(DType),
        key="original",
        bind="query-params",
        help="The reference of every comparison. `auto` is float32 on a CPU and bfloat16 on a GPU.",
    )
    return Variant(dtype)


def ability_of(snapshot: GpuInventory, device: Device) -> Ability:
    """What the models will run on: the first GPU where there is one, else this CPU."""
    capability = snapshot.gpus[0].compute_capability if snapshot.gpus else None
    return Ability() if capability is None or device == "cpu" else Ability("cuda", capability)


def choose_variants(reference: Variant, ability: Ability) -> tuple[Variant, ...]:
    """The variants to compare, with the details of each chosen scheme. What cannot run here is left out, with the
    reason."""
    options = [name for name in EXPLANATIONS if name != reference.dtype]
    chosen = st.multiselect(
        "Variants",
        options,
        default=[name for name in DEFAULT_CHOICE if name in options],
        key="variants",
        bind="query-params",
        placeholder="Choose at least one",
    )
    for name in chosen:
        st.caption(f"**{name}** {EXPLANATIONS[name]}")
    dtypes = [Variant(name) for name in DTYPES if name in chosen]
    detailed = _detailed([Scheme(name) for name in chosen if name not in DTYPES], ability)
    able, reasons = split_able(detailed, ability)
    for reason in reasons:
        st.warning(plain(reason), icon=":material/block:")
    return (*dtypes, *able)


def split_able(variants: Sequence[Variant], ability: Ability) -> tuple[list[Variant], list[str]]:
    """Those that can run there, and why the others cannot."""
    able: list[Variant] = []
    reasons: list[str] = []
    for variant in variants:
        found = () if variant.quantization is None else explain(variant.quantization, ability)
        reasons += [f"{variant.label} is left out: {reason}." for reason in found]
        if not found:
            able.append(variant)
    return able, reasons


def _detailed(schemes: Sequence[Scheme], ability: Ability) -> list[Variant]:
    if not schemes:
        return []
    with st.expander("Details of the quantized variants", icon=":material/tune:"):
        st.caption("Choose several values to compare them: each combination is a variant of its own.")
        return [variant for scheme in schemes for variant in _choose_details(default_quantization(scheme, ability))]


def _choose_details(default: Quantization) -> list[Variant]:
    scheme = default.scheme
    with st.container(border=True):
        st.markdown(f"**{scheme.value}**")
        with st.container(horizontal=True):
            granularities = _pills("A scale for each", _GRANULARITIES, default.granularity, f"granularity-{scheme}")
            size = default.group_size or DEFAULT_GROUP_SIZE
            sizes = _pills("Group size", {size: str(size) for size in GROUP_SIZES}, size, f"group-{scheme}")
            zero_points = _pills("Zero point", _ZERO_POINTS, default.is_symmetric, f"zero-{scheme}")
        kept = st.text_input(
            "Layers kept in high precision",
            value=", ".join(default.keep),
            key=f"keep-{scheme}",
            help="By the end of their name, separated by commas: lm_head, down_proj. Empty: none.",
        )
    keep = tuple(name.strip() for name in kept.split(",") if name.strip())
    return combine(scheme, granularities, sizes, zero_points, keep)


def _pills(label: str, names: Mapping[Option, str], default: Option, key: str) -> list[Option]:
    return st.pills(
        label,
        list(names),
        selection_mode="multi",
        default=[default],
        format_func=lambda option: names[option],
        key=key,
        help=_HELP.get(label),
    )


def combine(
    scheme: Scheme,
    granularities: Sequence[Granularity],
    group_sizes: Sequence[int],
    is_symmetric: Sequence[bool],
    keep: tuple[str, ...],
) -> list[Variant]:
    """Every combination as a variant; group sizes count only for groups."""
    variants: list[Variant] = []
    for granularity, symmetric in product(granularities, is_symmetric):
        sizes: Sequence[int | None] = group_sizes if granularity is Granularity.GROUP else (None,)
        variants += [Variant("auto", Quantization(scheme, granularity, size, symmetric, keep)) for size in sizes]
    return variants
