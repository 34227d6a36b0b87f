"""What to compare, on which prompts and which text."""

from __future__ import annotations

from typing import Literal

import streamlit as st

from dashboard.components.errors import errors_shown
from dashboard.components.lab_variants import choose_reference, choose_variants
from engine import Engine
from engine.lab import BUNDLED_TITLE, Lab, Plan
from engine.models.schemes import Ability
from engine.models.spec import Device
from engine.weights.sources import SAMPLE

DEFAULT_PROMPTS = (
    "What is the capital of France?",
    "Explain in two sentences why the sky is blue.",
    "Write a Python function that reverses a string.",
    "List three things to check before a long drive.",
)
_TEXTS = ("bundled", "own")
_NUM_TOKENS = (512, 1_024, 2_048, 4_096)


def show_form(lab: Lab, engine: Engine, device: Device, ability: Ability, *, is_running: bool) -> str | None:
    """The choices and the button; the id of the experiment that was begun."""
    reading, choosing = st.columns([2, 3], gap="large")
    with choosing:
        reference = choose_reference()
        variants = choose_variants(reference, ability)
    with reading:
        source = choose_source(engine, "source", bind="query-params")
        prompts = _choose_prompts()
        text, num_tokens = _choose_text()
        repeats = st.slider(
            "Repeats of each speed", 1, 10, 3, key="repeats", bind="query-params", help="More give a narrower interval."
        )
    plan = Plan(source, variants, prompts, reference, device, text, num_tokens, repeats)
    if st.button("Run the experiment", type="primary", icon=":material/science:", disabled=is_running):
        with errors_shown():
            return lab.start(plan)
    return None


def source_options(engine: Engine) -> list[str]:
    """The sources of the loaded models, then the sample."""
    return list(dict.fromkeys([*(info.spec.source for info in engine.instances()), SAMPLE]))


def choose_source(
    engine: Engine, key: str, *, label: str = "Model", bind: Literal["query-params"] | None = None
) -> str:
    """What the model is loaded from; empty where nothing is chosen."""
    source = st.selectbox(
        label,
        source_options(engine),
        key=key,
        bind=bind,
        accept_new_options=True,
        help="A loaded model's source, or type the path of a model folder or of a .gguf file, or the id of a model at "
        "the hub (org/name), which is fetched first.",
    )
    return (source or "").strip()


def _choose_prompts() -> tuple[str, ...]:
    written = st.text_area(
        "Prompts, one a line",
        "\n".join(DEFAULT_PROMPTS),
        height=140,
        key="lab-prompts",
        help="Every variant answers them greedily; speed is measured on them too.",
    )
    return split_prompts(written)


def split_prompts(written: str) -> tuple[str, ...]:
    """The lines that hold something, each once."""
    return tuple(dict.fromkeys(line.strip() for line in written.splitlines() if line.strip()))


def _choose_text() -> tuple[str | None, int]:
    with st.container(horizontal=True, vertical_alignment="bottom"):
        kind = st.segmented_control(
            "Text for perplexity", _TEXTS, default="bundled", required=True, key="text", bind="query-params"
        )
        num_tokens = st.selectbox(
            "Tokens of it",
            _NUM_TOKENS,
            index=2,
            key="tokens",
            bind="query-params",
            format_func=lambda count: f"{count:,}",
        )
    if kind == "own":
        return st.text_area("Your text", height=140, key="lab-text", placeholder="Paste a few pages"), num_tokens
    st.caption(BUNDLED_TITLE)
    return None, num_tokens
