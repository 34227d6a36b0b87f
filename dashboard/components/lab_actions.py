"""What to do with an experiment: load one of its variants, or take its figures along."""

from __future__ import annotations

from datetime import tzinfo

import streamlit as st

from dashboard.components.errors import errors_shown
from dashboard.components.formats import plain
from dashboard.components.links import link_to
from dashboard.components.times import local_datetime
from engine import Engine, ModelSpec
from engine.lab import Experiment, VariantResult, to_csv, to_json
from engine.weights.sources import find_source


def show_actions(experiment: Experiment, engine: Engine, zone: tzinfo) -> None:
    """Load one, and save all."""
    loadable = {result.label: result for result in experiment.results if result.weights_bytes is not None}
    moment = f"{local_datetime(experiment.started_at_s, zone):%Y%m%d-%H%M%S}"
    with st.container(horizontal=True, vertical_alignment="bottom"):
        if loadable:
            label = st.selectbox("Variant to load", list(loadable), key=f"load-{experiment.id}", width=300)
            is_asked = st.button("Load this one", icon=":material/deployed_code:")
        st.download_button(
            "CSV",
            to_csv(experiment),
            f"quantization-{moment}.csv",
            "text/csv",
            icon=":material/download:",
            on_click="ignore",
        )
        st.download_button(
            "JSON",
            to_json(experiment, 2),
            f"quantization-{moment}.json",
            "application/json",
            icon=":material/download:",
            on_click="ignore",
        )
    if loadable and is_asked:
        _load(engine, experiment, loadable[label])


def _load(engine: Engine, experiment: Experiment, result: VariantResult) -> None:
    with errors_shown():
        name = engine.load(spec_of(experiment, result))
        st.success(f"**{plain(name)}** is loading.", icon=":material/check:")
        link_to("models", "Follow it on the Models page")


def spec_of(experiment: Experiment, result: VariantResult) -> ModelSpec:
    """What loads the measured variant, named after model and variant: `SmolLM2-135M-Instruct-int8-weight`.

    Raises:
        WeightsError: the model is not there any more.
    """
    source = experiment.plan.source
    suffix = result.label.replace(", ", "-").replace(" ", "-")
    return result.variant.spec(
        source, experiment.plan.device, experiment.plan.prompts, f"{find_source(source).name}-{suffix}"
    )
