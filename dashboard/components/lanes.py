"""Who answers: one lane in a chat, two to four side by side in a comparison."""

from __future__ import annotations

import streamlit as st

from dashboard.components.parameters import Lane, choose_lane
from engine import Console, InstanceInfo, InstanceState

_WORKING = (InstanceState.PENDING, InstanceState.LOADING, InstanceState.WARMING)


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
    """Names of the instances that answer now."""
    return [item.name for item in console.engine.instances() if item.state is InstanceState.READY]


@st.fragment(run_every=0.5)
def show_waiting(console: Console) -> None:
    """What there is to wait for while no instance is ready; reloads the page when one is."""
    if ready_models(console):
        st.rerun()
    instances = console.engine.instances()
    if not instances:
        st.info("No model is loaded. Load one to chat.", icon=":material/deployed_code:")
        st.page_link("pages/models.py", label="Load a model", icon=":material/arrow_forward:")
    for item in instances:
        _show_progress(item)


def _show_progress(item: InstanceInfo) -> None:
    if item.state in _WORKING:
        label = f"{item.name}: {item.stage or item.state.value}"
        st.progress(item.progress if item.progress is not None else 0.0, f"{label} …")
    else:
        st.error(f"{item.name} is {item.state.value}: {item.reason or 'see the models page'}", icon=":material/error:")
