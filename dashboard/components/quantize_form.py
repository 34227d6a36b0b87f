"""Quantizing a model into a folder of its own, from which it loads again with the same logits."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from dashboard.components.errors import errors_shown, show_error
from dashboard.components.formats import format_bytes, format_ratio, plain
from dashboard.components.instances import quantization_text
from dashboard.components.job_progress import follow_job
from dashboard.components.lab_form import choose_source
from dashboard.components.links import link_to_load
from dashboard.components.load_form import is_complete
from dashboard.components.spec_form import choose_placement, choose_quantization
from engine import Engine, ModelSpec
from engine.errors import WeightsError
from engine.models.quantizing import QuantizedFolder, Quantizing, propose_output
from engine.staged_job import StageProgress

_KEY = "save"


def saved_folder(home: Path) -> Path:
    """Where quantized models are saved unless another folder is named."""
    return home / "quantized"


def show_quantize(quantizing: Quantizing, engine: Engine, parent: Path, progress: StageProgress | None) -> None:
    """Ask for a model, a scheme and a folder, quantize, follow that, and show what came of it. `progress` was read
    before anything else."""
    st.caption("Loads a model, quantizes it and saves it as a folder: it loads again with the same logits to the bit.")
    with st.container(border=True):
        spec = _choose_spec(engine)
        proposed = _propose(parent, spec)
        folder = st.text_input(
            "Folder",
            key=f"{_KEY}-folder",
            placeholder=str(proposed),
            help=f"New or empty, on the console's machine; a name alone is one in {plain(str(parent))}.",
        ).strip()
        is_busy = progress is not None
        is_submitted = st.button(
            "Quantize and save", key=f"{_KEY}-submit", type="primary", icon=":material/save:", disabled=is_busy
        )
    if is_submitted and is_complete(spec):
        with errors_shown():
            quantizing.quantize(spec, parent / Path(folder).expanduser() if folder else proposed)
            st.rerun()
    follow_job(quantizing, progress, bar, key=_KEY, when_cancelled=None)
    if progress is None:
        _show_end(quantizing)


def _choose_spec(engine: Engine) -> ModelSpec:
    source = choose_source(engine, f"{_KEY}-source", label="Model to save")
    with st.container(horizontal=True):
        device, dtype = choose_placement(_KEY, ModelSpec(source))
    quantization = choose_quantization(_KEY, None, device, is_optional=False)
    return ModelSpec(source, device=device, dtype=dtype, quantization=quantization)


def _propose(parent: Path, spec: ModelSpec) -> Path:
    """Where the source names nothing, beginning will say so."""
    try:
        return propose_output(parent, spec)
    except WeightsError:
        return parent / "model"


def bar(progress: StageProgress) -> tuple[float, str]:
    """`sample into /models/int8: quantizing to int8-weight, 43%`."""
    share = "" if progress.fraction is None else f", {progress.fraction:.0%}"
    return progress.fraction or 0.0, plain(f"{progress.subject}: {progress.stage}{share}")


def _show_end(quantizing: Quantizing) -> None:
    made = quantizing.report()
    if quantizing.error is not None:
        show_error(quantizing.error)
    elif quantizing.is_cancelled and made is None:
        st.caption(f"Quantizing {plain(quantizing.subject or '')} was cancelled; nothing was written.")
    elif made is not None:
        st.success(made_text(made), icon=":material/check_circle:")
        st.caption(plain(str(made.folder)))
        link_to_load(str(made.folder))


def made_text(made: QuantizedFolder) -> str:
    """What was saved, and how much smaller it is, in Markdown."""
    held = "" if made.quantization is None else f" as {quantization_text(made.quantization)}"
    return (
        f"**{plain(made.name)}**{held} is saved: {format_bytes(made.size_bytes)} on disk, "
        f"{format_ratio(made.size_ratio)} of the {format_bytes(made.plain_bytes)} that its weights take in bfloat16; "
        f"{format_bytes(made.weights_bytes)} in memory."
    )
