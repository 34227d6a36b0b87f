"""The form that makes an API key, and the one showing of its secret."""

from __future__ import annotations

import streamlit as st

from dashboard.components.errors import errors_shown
from dashboard.components.formats import plain
from dashboard.components.sign_in import sign_in
from engine import Console
from engine.keyring import NewKey
from engine.scheduling.quota import MAX_QUOTA, Quota
from engine.state.api_keys import MAX_NAME_LENGTH, Scope

_NEW = "new_api_key"
_NUM_MADE = "num_api_keys_made"
_DAY_S = 86_400.0
_LIFETIMES: dict[str, float | None] = {
    "never": None,
    "in a day": _DAY_S,
    "in 30 days": 30 * _DAY_S,
    "in 90 days": 90 * _DAY_S,
    "in a year": 365 * _DAY_S,
}
_SCOPE_HELP = (
    "`inference` asks models, `admin` opens these pages and the admin API, `metrics` reads `/metrics` and the "
    "environment report and nothing else."
)


def show_key_form(console: Console) -> None:
    """Ask for a key and make it. What was typed stays where it was refused."""
    key = f"key-{st.session_state.get(_NUM_MADE, 0)}"  # a fresh form after each key
    with st.expander("Create a key", icon=":material/add:", key=f"{key}-expander"), st.form(key, border=False):
        name = st.text_input("Name", max_chars=MAX_NAME_LENGTH, placeholder="phone farm", key=f"{key}-name")
        scopes = st.pills(
            "Scopes",
            list(Scope),
            default=[Scope.INFERENCE],
            selection_mode="multi",
            help=_SCOPE_HELP,
            key=f"{key}-scopes",
        )
        lifetime = st.selectbox("Expires", list(_LIFETIMES), key=f"{key}-lifetime")
        quota = choose_quota(key, Quota())
        is_submitted = st.form_submit_button("Create key", type="primary", icon=":material/key:")
    if is_submitted:
        with errors_shown():
            _create(console, name, scopes, quota, _LIFETIMES[lifetime])
            st.rerun()


def choose_quota(key: str, start: Quota) -> Quota:
    """Three numbers; an empty one is no bound."""
    with st.container(horizontal=True):
        return Quota(
            _number("Requests a minute", f"{key}-requests", start.requests_per_minute),
            _number("Tokens a minute", f"{key}-tokens", start.tokens_per_minute),
            _number("Requests at once", f"{key}-concurrent", start.concurrent_requests),
        )


def _number(label: str, key: str, start: int | None) -> int | None:
    chosen: int | None = st.number_input(
        label, 1, MAX_QUOTA, start, key=key, placeholder="no bound", help="Empty: no bound.", width=180
    )
    return chosen


def _create(console: Console, name: str, scopes: list[Scope], quota: Quota, lifetime_s: float | None) -> None:
    expires_at_s = None if lifetime_s is None else console.clock.wall() + lifetime_s
    was_open = not console.keys.is_guarded(Scope.ADMIN)
    new = console.keys.create(name, scopes, quota, expires_at_s)
    if was_open and Scope.ADMIN in new.key.scopes:
        sign_in(new.key.id)  # from now on the pages need a key: whoever made it stays in
    st.session_state[_NEW] = new
    st.session_state[_NUM_MADE] = st.session_state.get(_NUM_MADE, 0) + 1


def show_new_key() -> None:
    """The secret of the key made last in this session, until it is dismissed."""
    new: NewKey | None = st.session_state.get(_NEW)
    if new is None:
        return
    with st.container(border=True):
        st.markdown(f"**{plain(new.key.name)}** is made. Copy its secret now: it is never shown again.")
        st.code(new.secret, language=None, wrap_lines=True)
        if st.button("I have copied it", key="dismiss-key", icon=":material/check:"):
            del st.session_state[_NEW]
            st.rerun()
