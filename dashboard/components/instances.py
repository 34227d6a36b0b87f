"""A loaded model at a glance: its state, how far it has come, what it does now."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from dashboard.components.formats import format_large, format_rate, format_whole_seconds, plain
from engine import InstanceInfo, InstanceState
from engine.inference.stats import RunnerStats
from engine.instance import Role
from engine.lab import Variant
from engine.models.spec import Quantization

# colour and icon of each state
_LOOKS = {
    InstanceState.PENDING: ("gray", ":material/schedule:"),
    InstanceState.LOADING: ("blue", ":material/hourglass_top:"),
    InstanceState.WARMING: ("blue", ":material/local_fire_department:"),
    InstanceState.READY: ("green", ":material/check_circle:"),
    InstanceState.DRAINING: ("orange", ":material/hourglass_bottom:"),
    InstanceState.STOPPED: ("gray", ":material/stop_circle:"),
    InstanceState.FAILED: ("red", ":material/error:"),
}

COMING = frozenset({InstanceState.PENDING, InstanceState.LOADING, InstanceState.WARMING})


def state_badge(state: InstanceState) -> str:
    """The state as Markdown, by colour, icon and word."""
    color, icon = _LOOKS[state]
    return f":{color}-badge[{icon} {state.value}]"


def version_badge(info: InstanceInfo) -> str | None:
    """Which version it is, as Markdown, where there is more than one to tell apart."""
    if info.role is Role.SERVING and info.version == 1:
        return None
    role = "" if info.role is Role.SERVING else f" · {info.role.value}"
    return f":violet-badge[version {info.version}{role}]"


def quantization_text(quantization: Quantization) -> str:
    """`int4-weight, group of 32, affine`."""
    return Variant("auto", quantization).label


def describe(info: InstanceInfo) -> str:
    """What runs where: `float32 on cpu · 134.5 M parameters`; what was asked for until it is loaded."""
    if info.model is not None:
        held = info.model.dtype if info.model.quantization is None else quantization_text(info.model.quantization)
        return f"{held} on {info.model.device} · {format_large(info.model.num_parameters)} parameters"
    asked = "" if info.spec.quantization is None else f" · {quantization_text(info.spec.quantization)}"
    return f"{info.spec.source} · device {info.spec.device} · dtype {info.spec.dtype}{asked}"


def stage_text(info: InstanceInfo, now_s: float) -> str:
    """What is being waited for and since when."""
    waits = {
        InstanceState.PENDING: "waiting for its turn",
        InstanceState.WARMING: "warming up with a first generation",
    }
    stage = waits.get(info.state) or info.stage or "starting"
    share = f" {info.progress:.0%}" if info.progress is not None else ""
    return f"{stage}{share} · {format_whole_seconds(max(0.0, now_s - info.since_s))}"


def failure_text(info: InstanceInfo, now_s: float) -> str:
    """Why it failed, and when it will try again by itself if it will."""
    reason = info.reason or "no reason was given"
    if info.retry_at_s is None:
        return reason
    wait_s = max(0, round(info.retry_at_s - now_s))
    return f"{reason}; tries again {f'in {wait_s} s' if wait_s else 'now'}"


def show_instances(infos: Sequence[InstanceInfo], now_s: float) -> None:
    """A card an instance, or what to do where there is none."""
    if not infos:
        st.info("No model is loaded. Load one on the Models page, then chat with it.", icon=":material/info:")
    for info in infos:
        with st.container(border=True):
            show_instance(info, now_s)


def show_instance(info: InstanceInfo, now_s: float) -> None:
    """Name, state, and what matters in that state."""
    with st.container(horizontal=True, vertical_alignment="center"):
        st.markdown(f"**{plain(info.name)}**", width="content")
        st.markdown(state_badge(info.state), width="content")
        if badge := version_badge(info):
            st.markdown(badge, width="content")
    st.caption(plain(describe(info)))
    if info.state in COMING:
        text = stage_text(info, now_s) if info.role is not Role.LEAVING else "being cancelled"
        st.progress(info.progress or 0.0, text=plain(text))
    if info.state is InstanceState.FAILED:
        st.error(plain(failure_text(info, now_s)), icon=":material/error:")
    if info.stats is not None and info.state in (InstanceState.READY, InstanceState.DRAINING):
        show_load(info.stats)


def show_load(stats: RunnerStats) -> None:
    """How busy it is now, and why the first in the queue waits."""
    with st.container(horizontal=True):
        st.metric("Output tokens/s", format_rate(stats.tokens_per_s), help="Over the last five seconds.")
        st.metric(
            "Running", f"{stats.num_running} / {stats.max_running}", help="Requests in the batch, and its places."
        )
        st.metric(
            "Waiting", f"{stats.num_waiting} / {stats.max_waiting}", help="Requests in the queue, and its places."
        )
    if stats.held_back:
        st.caption(f":material/hourglass_bottom: The queue waits: {plain(stats.held_back)}.")
