"""The routes: what each name stands for, and how its requests are divided; made, changed and deleted."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from dashboard.components.errors import errors_shown
from dashboard.components.formats import plain
from dashboard.components.question import Question
from engine.gateway import Gateway
from engine.scheduling.router import Route, Target

_EDIT = Question("serving_route_to_edit")
_DELETE = Question("serving_route_to_delete")
_NEW = Route("", ())


def shares_text(targets: Sequence[Target], *, is_weighted: bool) -> str:
    """`m 90 %, far 10 %`; the names alone where the least busy one answers."""
    if not is_weighted:
        return ", ".join(target.instance for target in targets)
    total = sum(target.weight for target in targets)
    return ", ".join(
        f"{target.instance} {target.weight / total * 100:.3g} %" if total > 0 else f"{target.instance} –"
        for target in targets
    )


def show_routes(gateway: Gateway) -> None:
    """A card a route, and the button for another."""
    routes = gateway.routes.all()
    if not routes:
        st.info(
            "There is no route. Instances are asked by their own names, and `auto` goes to any of them; a route gives "
            "several of them one name.",
            icon=":material/info:",
        )
    here = {candidate.name for candidate in gateway.candidates()}
    for by in routes:
        with st.container(border=True):
            _show_route(by, here)
    if st.button("New route", icon=":material/add:", key="route-new"):
        _EDIT.ask("")


def _show_route(by: Route, here: set[str]) -> None:
    with st.container(horizontal=True, vertical_alignment="center"):
        st.markdown(f"**{plain(by.name)}**", width="content")
        st.markdown(f":blue-badge[{'by weight' if by.is_weighted else 'least busy'}]", width="content")
        if by.is_sticky:
            st.markdown(":gray-badge[sticky]", width="content", help="A conversation stays with its instance.")
    st.markdown(plain(shares_text(by.targets, is_weighted=by.is_weighted)))
    if by.fallbacks:
        st.caption(f"then, in this order: {plain(', '.join(by.fallbacks))}")
    missing = [name for name in by.members if name not in here]
    if missing:
        st.caption(f":orange[:material/warning: not here now: {plain(', '.join(missing))}]")
    with st.container(horizontal=True):
        if st.button("Edit", key=f"route-edit-{by.name}", icon=":material/edit:"):
            _EDIT.ask(by.name)
        if st.button("Delete", key=f"route-delete-{by.name}", icon=":material/delete:"):
            _DELETE.ask(by.name)


def show_route_asked(gateway: Gateway) -> None:
    """The dialog that was asked for, until it is answered."""
    if (name := _EDIT.about) is not None:
        _edit(gateway, gateway.routes.find(name) or _NEW)
    elif (name := _DELETE.about) is not None:
        _confirm_delete(gateway, name)


@st.dialog("Route", icon=":material/alt_route:", on_dismiss=_EDIT.forget)
def _edit(gateway: Gateway, start: Route) -> None:
    changed = _choose_route(start, [candidate.name for candidate in gateway.candidates()])
    if _EDIT.is_confirmed("Save", "Leave it", "route"):
        with errors_shown():
            gateway.routes.save(changed)
            _EDIT.close()


def _choose_route(start: Route, here: Sequence[str]) -> Route:
    key = f"route-{start.name}"
    names = list(dict.fromkeys([*here, *start.members]))
    name = st.text_input(
        "Name",
        start.name,
        key=f"{key}-name",
        disabled=bool(start.name),
        placeholder="chat",
        help="What clients ask for. It may be an instance's own name: its requests then take this route.",
    ).strip()
    chosen = st.multiselect(
        "Targets", names, [target.instance for target in start.targets], key=f"{key}-targets", placeholder="Instances"
    )
    is_weighted = st.toggle(
        "Divide by weight",
        start.is_weighted,
        key=f"{key}-weighted",
        help="As for a canary. Off: the least busy target answers.",
    )
    targets = _choose_weights(key, chosen, start) if is_weighted else tuple(Target(one) for one in chosen)
    fallbacks = st.multiselect(
        "Fallbacks, in this order",
        [one for one in names if one not in chosen],
        [one for one in start.fallbacks if one not in chosen],
        key=f"{key}-fallbacks",
        placeholder="Asked when no target can answer",
    )
    is_sticky = st.toggle(
        "Sticky conversations",
        start.is_sticky,
        key=f"{key}-sticky",
        help="A conversation stays with the instance that answered it, while that can answer.",
    )
    return Route(name, targets, tuple(fallbacks), is_weighted, is_sticky)


def _choose_weights(key: str, chosen: Sequence[str], start: Route) -> tuple[Target, ...]:
    before = {target.instance: target.weight for target in start.targets}
    targets = tuple(
        Target(one, st.number_input(f"Weight of {one}", 0.0, None, before.get(one, 1.0), key=f"{key}-weight-{one}"))
        for one in chosen
    )
    total = sum(target.weight for target in targets)
    st.caption(f"Sum {total:g}: {plain(shares_text(targets, is_weighted=True)) or 'no target yet'}")
    return targets


@st.dialog("Delete this route?", icon=":material/delete:", on_dismiss=_DELETE.forget)
def _confirm_delete(gateway: Gateway, name: str) -> None:
    is_instance = any(candidate.name == name for candidate in gateway.candidates())
    after = "the instance of that name alone answers" if is_instance else "requests for that name are answered 404"
    st.markdown(f"Without **{plain(name)}**, {after}.")
    if _DELETE.is_confirmed("Delete", "Keep it", "route-delete"):
        with errors_shown():
            gateway.routes.delete(name)
            _DELETE.close()
