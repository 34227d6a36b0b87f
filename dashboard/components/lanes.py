"""Who answers: one lane in a chat, two to four side by side in a comparison."""

from __future__ import annotations

import streamlit as st

from dashboard.components.instances import show_instance
from dashboard.components.links import link_to
from dashboard.components.parameters import Lane, choose_lane
from engine import Console, InstanceState
from engine.models.spec import Modality


def choose_lanes(models: list[str], *, is_comparison: bool) -> list[Lane]:
    """Draw the controls of every lane."""
    if not is_comparison:
        return [choose_lane("lane.0", models, None, with_seed=True)]
    count_column, seed_column, _ = st.columns([1, 1, 2])
    count = count_column.segmented_control(
        "Side by side", [2, 3, 4], default=2, key="lanes.count", persist_state="session", required=True
    )
    seed = seed_column.number_input(
        "Seed for all", 0, None, 1, 1, key="lanes.seed", persist_state="session", help="The same draw in every lane."
    )
    lanes = []
    for index, column in enumerate(st.columns(count or 2)):
        with column:
            lanes.append(choose_lane(f"lane.{index}", models, seed, with_seed=False))
    return lanes


def ready_models(console: Console) -> list[str]:
    """Who answers now: instances here, then routes and instances elsewhere, and `auto` where there is a choice."""
    here = [item.name for item in console.engine.instances() if item.state is InstanceState.READY]
    return here + [name for name in console.gateway.names() if name not in here]


def may_show_images(console: Console, lanes: list[Lane]) -> bool:
    """Whether a model of one of the lanes takes pictures, or is elsewhere, where that is not known."""
    here = {item.name: item.model for item in console.engine.serving()}
    models = [here.get(lane.model) for lane in lanes]
    return any(model is None or Modality.IMAGES in model.served for model in models)


@st.fragment(run_every=0.5)
def show_waiting(console: Console) -> None:
    """What there is to wait for while no instance is ready; reloads the page when one is."""
    if ready_models(console):
        st.rerun()
    instances = console.engine.instances()
    if not instances:
        st.info("No model is loaded. Load one to chat.", icon=":material/deployed_code:")
        link_to("models", "Load a model")
    for item in instances:
        show_instance(item, console.clock.wall())
