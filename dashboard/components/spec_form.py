"""What to load and how: the fields that loading and swapping ask for alike.

No `st.form` around them, because the choices of quantization depend on the scheme above them.
"""

from __future__ import annotations

from typing import get_args

import streamlit as st

from dashboard.components.formats import plain
from dashboard.components.lab_variants import EXPLANATIONS
from engine import ModelSpec
from engine.models.schemes import (
    BITSANDBYTES,
    GROUP_SIZES,
    Ability,
    default_quantization,
    explain,
    offered_schemes,
)
from engine.models.spec import Attention, Device, DType, Granularity, Quantization, Scheme
from engine.weights.sources import SAMPLE

_AS_STORED = "none"
_SCALES = {Granularity.TENSOR: "tensor", Granularity.CHANNEL: "output channel", Granularity.GROUP: "group of inputs"}


def choose_spec(key: str, start: ModelSpec, max_running: int) -> ModelSpec:
    """Draw the fields, `start` in them at first, and say what stands in them now. The source may be empty.

    Args:
        key: what the widgets' keys begin with.
        max_running: the setting, which stands in its field as long as nobody changes it.
    """
    source = st.text_input(
        "Source",
        value=start.source,
        placeholder="/models/AutoGLM-Phone-9B",
        help=(
            f"The path of a model folder or of a .gguf file on the console's machine, `{SAMPLE}`, or a hub id: "
            "`org/name@revision`."
        ),
        key=f"{key}-source",
    ).strip()
    with st.container(horizontal=True):
        device, dtype = choose_placement(key, start)
        attention: Attention = st.selectbox(
            "Attention",
            get_args(Attention),
            get_args(Attention).index(start.attention),
            help=(
                "`sdpa` is torch's fused kernel, and what `auto` takes. `eager` writes every score out in float32: "
                "slower, and there to compare with."
            ),
            key=f"{key}-attention",
            width=110,
        )
    quantization = choose_quantization(key, start.quantization, device)
    context = st.number_input(
        "Context length",
        1,
        None,
        start.context_length,
        key=f"{key}-context",
        placeholder="the model's own",
        help="Tokens that one request may hold, prompt and answer together. Shorter needs less memory.",
    )
    running = st.number_input(
        "Requests at once",
        1,
        1024,
        start.max_running,
        key=f"{key}-running",
        placeholder=f"{max_running} (the setting)",
        help="Places in the batch; others wait. More places answer more requests a second, each more slowly.",
    )
    return ModelSpec(source, start.name, device, dtype, quantization, context, running, attention)


def choose_placement(key: str, start: ModelSpec) -> tuple[Device, DType]:
    """Where the model runs, and as what its weights are held."""
    device: Device = st.selectbox(
        "Device",
        get_args(Device),
        get_args(Device).index(start.device),
        help="`auto` takes a GPU where there is one.",
        key=f"{key}-device",
        width=110,
    )
    dtype: DType = st.selectbox(
        "Weights as",
        get_args(DType),
        get_args(DType).index(start.dtype),
        help="`auto` is float32 on a CPU and bfloat16 on a GPU.",
        key=f"{key}-dtype",
        width=130,
    )
    return device, dtype


def choose_quantization(
    key: str, start: Quantization | None, device: Device, *, is_optional: bool = True
) -> Quantization | None:
    """The scheme and its details, as suits the device best at first; None, which is offered where `is_optional`,
    leaves the weights as they are."""
    ability = Ability("cuda" if device == "cuda" else "cpu")
    offered = {*offered_schemes(ability), *(() if start is None else (start.scheme,))}
    options = [*([_AS_STORED] if is_optional else []), *(scheme.value for scheme in Scheme if scheme in offered)]
    chosen = st.selectbox(
        "Quantization",
        options,
        0 if start is None else options.index(start.scheme.value),
        key=f"{key}-scheme",
        help="Fewer bits a weight: less memory, and on a CPU more tokens a second, for some loss of quality.",
    )
    if chosen == _AS_STORED:
        return None
    st.caption(EXPLANATIONS[chosen])
    scheme = Scheme(chosen)
    first = start if start is not None and start.scheme is scheme else default_quantization(scheme, ability)
    quantization = _choose_details(f"{key}-{scheme}", first)
    if device == "cpu" or scheme in BITSANDBYTES:  # what else a GPU can do the page does not know; loading says so
        for reason in explain(quantization, ability):
            st.warning(plain(reason), icon=":material/warning:")
    return quantization


def _choose_details(key: str, first: Quantization) -> Quantization:
    with st.expander("Details", icon=":material/tune:"):
        scales = list(_SCALES)
        granularity = st.selectbox(
            "A scale for each",
            scales,
            scales.index(first.granularity),
            format_func=_SCALES.__getitem__,
            key=f"{key}-granularity",
            help="Finer scales lose less and take a little more memory.",
        )
        size = None
        if granularity is Granularity.GROUP:
            sizes = [*GROUP_SIZES, 256]
            size = st.selectbox(
                "Group size",
                sizes,
                sizes.index(first.group_size or GROUP_SIZES[0]),
                key=f"{key}-group",
                help="Inputs that share a scale.",
            )
        is_symmetric = st.toggle(
            "Symmetric",
            first.is_symmetric,
            key=f"{key}-symmetric",
            help="Scales around zero. Off is affine: it shifts too, which fits lopsided weights better.",
        )
        kept = st.text_input(
            "Layers kept in high precision",
            ", ".join(first.keep),
            key=f"{key}-keep",
            help="By the end of their name, separated by commas. Empty: none.",
        )
    keep = tuple(name.strip() for name in kept.split(",") if name.strip())
    return Quantization(first.scheme, granularity, size, is_symmetric, keep)
