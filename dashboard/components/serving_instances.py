"""The instances that requests can go to, local and remote: state, load, how they did lately, breaker."""

from __future__ import annotations

import streamlit as st

from dashboard.components.errors import errors_shown
from dashboard.components.formats import DASH, format_count, format_seconds, plain, plural
from dashboard.components.instances import describe, failure_text, state_badge
from dashboard.components.links import link_to
from dashboard.components.question import Question
from dashboard.components.times import format_ago
from engine import InstanceInfo, InstanceState
from engine.gateway import Gateway, Recent
from engine.remote import RemoteInfo
from engine.scheduling.router import BreakerState, Candidate

_REMOVE = Question("serving_remote_to_remove")
_BREAKERS = {
    BreakerState.OPEN: ":red-badge[:material/power_off: breaker open]",
    BreakerState.HALF_OPEN: ":orange-badge[:material/power: breaker half-open]",
}
_BREAKER_HELP = (
    "Open: after several failures in a row nothing is sent for a while. Half-open: one request is sent as a trial."
)


def breaker_badge(state: BreakerState) -> str | None:
    """A breaker that is not closed, as Markdown."""
    return _BREAKERS.get(state)


def remote_text(info: RemoteInfo, now_s: float) -> str:
    """Which model where, and when that was last seen."""
    context = "" if info.context_length is None else f" · {format_count(info.context_length)} tokens of context"
    bits = "" if info.spec.bits_per_weight is None else f" · {info.spec.bits_per_weight:g} bits a weight"
    if info.checked_at_s is None:
        seen = "being checked for the first time"
    else:
        seen = f"checked {format_ago(info.checked_at_s, now_s)} in {format_seconds(info.check_s)}"
    return f"{info.spec.model} at {info.spec.base_url}{context}{bits} · {seen}"


def load_metrics(candidate: Candidate, recent: Recent) -> list[tuple[str, str, str]]:
    """(label, value, help) of what an instance has to do and how it did."""
    places = "" if candidate.max_running is None else f" / {candidate.max_running}"
    waits = DASH if candidate.is_remote else f"{candidate.num_waiting:,}"
    return [
        ("Running", f"{candidate.num_running}{places}", "Requests at work, and the places for them."),
        ("Waiting", waits, "Requests in the queue. A remote server does not tell."),
        ("TTFT P95", format_seconds(recent.ttft_p95_s), "Of the requests answered in the last five minutes."),
        ("E2E P95", format_seconds(recent.e2e_p95_s), "Of the requests answered in the last five minutes."),
        (
            "Failed",
            f"{recent.num_failed} / {recent.num_answered + recent.num_failed}",
            "Of the last requests sent through the router: failures that lie with the instance.",
        ),
    ]


def show_instances(gateway: Gateway, local: tuple[InstanceInfo, ...], now_s: float) -> None:
    """A card an instance, or where to get one."""
    here = {candidate.name: candidate for candidate in gateway.candidates()}
    if not here:
        st.info("There is no instance: load a model, or add a remote one.", icon=":material/info:")
        link_to("models", "Load a model")
    for info in local:
        with st.container(border=True):
            _show_local(info, now_s)
            if info.name in here:
                _show_load(gateway, here[info.name])
    names = {info.name for info in local}
    for remote in gateway.remotes.infos():
        with st.container(border=True):
            _show_remote(remote, now_s, is_hidden=remote.name in names)
            if remote.name in here and remote.name not in names:
                _show_load(gateway, here[remote.name])
            _show_remote_actions(gateway, remote)


def _show_head(name: str, state: InstanceState, kind: str) -> None:
    with st.container(horizontal=True, vertical_alignment="center"):
        st.markdown(f"**{plain(name)}**", width="content")
        st.markdown(state_badge(state), width="content")
        st.markdown(f":gray-badge[{kind}]", width="content")


def _show_local(info: InstanceInfo, now_s: float) -> None:
    _show_head(info.name, info.state, ":material/memory: local")
    st.caption(plain(describe(info)))
    if info.state is InstanceState.FAILED:
        st.error(plain(failure_text(info, now_s)), icon=":material/error:")


def _show_remote(info: RemoteInfo, now_s: float, *, is_hidden: bool) -> None:
    _show_head(info.name, info.state, ":material/cloud: remote")
    st.caption(plain(remote_text(info, now_s)))
    if is_hidden:
        st.warning(
            "A local model has the same name, so this one is not asked: load that one under another name.",
            icon=":material/visibility_off:",
        )
    if info.state is InstanceState.FAILED:
        st.error(plain(info.reason or "no reason was given"), icon=":material/error:")


def _show_load(gateway: Gateway, candidate: Candidate) -> None:
    badge = breaker_badge(gateway.breaker_state(candidate.name))
    if badge is not None:
        st.markdown(badge, help=_BREAKER_HELP)
    with st.container(horizontal=True):
        for label, value, help_text in load_metrics(candidate, gateway.recent(candidate.name)):
            st.metric(label, value, help=help_text, width="content")


def _show_remote_actions(gateway: Gateway, info: RemoteInfo) -> None:
    """What asks or waits happens outside the fragment that refreshes: see `show_asked`."""
    with st.container(horizontal=True):
        if st.button("Check now", key=f"check-{info.name}", icon=":material/network_check:"):
            with errors_shown():
                gateway.remotes.check(info.name)
        if st.button("Remove", key=f"remove-{info.name}", icon=":material/delete:"):
            _REMOVE.ask(info.name)
            st.rerun()


def show_asked(gateway: Gateway) -> None:
    """Ask about what was clicked, until it is answered."""
    if (name := _REMOVE.about) is not None:
        _confirm_removal(gateway, name)


@st.dialog("Remove this remote instance?", icon=":material/delete:", on_dismiss=_REMOVE.forget)
def _confirm_removal(gateway: Gateway, name: str) -> None:
    num_here = sum(request.model == name for request in gateway.remotes.requests())
    st.markdown(f"**{plain(name)}** is forgotten here, with its stored key. The server itself is left alone.")
    if num_here:
        st.markdown(f"{plural(num_here, 'request')} to it {'is' if num_here == 1 else 'are'} cancelled.")
    routes = [by.name for by in gateway.routes.all() if name in by.members]
    if routes:
        st.warning(f"Still named by: {plain(', '.join(routes))}", icon=":material/alt_route:")
    if _REMOVE.is_confirmed("Remove", "Keep it", "remove"):
        with errors_shown():
            gateway.remove_remote(name)
            _REMOVE.close()
