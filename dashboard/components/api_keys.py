"""The API keys: what was done with each, its quotas, and its end."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import tzinfo
from typing import Any

import streamlit as st

from dashboard.components.errors import errors_shown
from dashboard.components.formats import DASH, format_count, plain, plural
from dashboard.components.key_form import choose_quota, show_key_form, show_new_key
from dashboard.components.question import Question
from dashboard.components.sign_in import signed_in_key
from dashboard.components.times import browser_zone, local_datetime
from engine import Console
from engine.keyring import SETTING_NAME, Keyring
from engine.state.api_keys import ApiKey, Scope

_REVOKE = Question("key_to_revoke")
_BOUND = Question("key_to_bound")


def key_rows(keys: Sequence[ApiKey], now_s: float, zone: tzinfo) -> dict[str, list[Any]]:
    """The keys as columns of a table."""
    return {
        "Name": [key.name for key in keys],
        "Secret": [f"{key.prefix}…" for key in keys],
        "State": [key_state(key, now_s) for key in keys],
        "Scopes": [sorted(key.scopes) for key in keys],
        "Last used": [_moment(key.last_used_at_s, zone) for key in keys],
        "Requests": [key.usage.num_requests for key in keys],
        "Rejected": [key.usage.num_rejected for key in keys],
        "Prompt tokens": [key.usage.num_prompt_tokens for key in keys],
        "Output tokens": [key.usage.num_output_tokens for key in keys],
        "Requests/min": [_bound(key.quota.requests_per_minute) for key in keys],
        "Tokens/min": [_bound(key.quota.tokens_per_minute) for key in keys],
        "At once": [_bound(key.quota.concurrent_requests) for key in keys],
        "Created": [_moment(key.created_at_s, zone) for key in keys],
        "Expires": [_moment(key.expires_at_s, zone) for key in keys],
    }


def key_state(key: ApiKey, now_s: float) -> str:
    """`in force`, `expired` or `revoked`."""
    if key.revoked_at_s is not None:
        return "revoked"
    return "expired" if key.is_expired(now_s) else "in force"


def show_api_keys(console: Console) -> None:
    """All of it."""
    st.caption(who_is_let_in(console))
    show_new_key()
    with errors_shown():
        keys = console.keys.list()
        _show_table(keys, console.clock.wall())
        _show_actions([key for key in keys if key.revoked_at_s is None])
    show_key_form(console)
    _show_asked(console.keys)


def who_is_let_in(console: Console) -> str:
    """What needs a key now."""
    num_configured = len(console.keys.configured())
    open_all = f"open{'s' if num_configured == 1 else ''} everything"
    also = f" {plural(num_configured, 'key')} of {plain(SETTING_NAME)} {open_all}." if num_configured else ""
    if not console.keys.is_guarded(Scope.INFERENCE):
        return "There is no key: whoever is on this machine may use everything, and no other machine reaches it."
    if not console.keys.is_guarded(Scope.ADMIN):
        return (
            "The API needs a key. These pages and the admin API need none from this machine until there is a key with"
            " the scope admin."
        )
    return f"The API, these pages and the admin API need a key.{also}"


def _show_table(keys: Sequence[ApiKey], now_s: float) -> None:
    if not keys:
        return
    st.dataframe(key_rows(keys, now_s, browser_zone()), hide_index=True, alt="API keys")


def _show_actions(keys: Sequence[ApiKey]) -> None:
    if not keys:
        return
    labels = {key.id: f"{key.name} ({key.prefix}…)" for key in keys}
    with st.container(horizontal=True, vertical_alignment="bottom"):
        chosen = st.selectbox("Key", list(labels), format_func=labels.__getitem__, index=None, key="chosen-key")
        _ask_button("Quotas", ":material/speed:", _BOUND, chosen)
        _ask_button("Revoke", ":material/block:", _REVOKE, chosen)


def _ask_button(label: str, icon: str, question: Question, key_id: str | None) -> None:
    is_clicked = st.button(label, icon=icon, key=f"ask-{label.lower()}", disabled=key_id is None)
    if is_clicked and key_id is not None:
        question.ask(key_id)
        st.rerun()


def _show_asked(keys: Keyring) -> None:
    """Ask about what was clicked, until it is answered."""
    for question, ask in ((_REVOKE, _confirm_revoke), (_BOUND, _ask_for_quota)):
        if question.about is not None:
            found = next((key for key in keys.list() if key.id == question.about), None)
            if found is not None:
                ask(keys, found)


@st.dialog("Revoke this key?", icon=":material/block:", on_dismiss=_REVOKE.forget)
def _confirm_revoke(keys: Keyring, key: ApiKey) -> None:
    st.markdown(
        f"**{plain(key.name)}** ({plain(key.prefix)}…) is refused from its next request on, and nothing brings it back."
        f" It was used for {plural(key.usage.num_requests, 'request')}."
    )
    if key.id == signed_in_key():
        st.warning("You came in with this key: you will be signed out.", icon=":material/warning:")
    if _REVOKE.is_confirmed("Revoke", "Keep it", "revoke"):
        with errors_shown():
            keys.revoke(key.id)
            _REVOKE.close()


@st.dialog("Quotas of this key", icon=":material/speed:", on_dismiss=_BOUND.forget)
def _ask_for_quota(keys: Keyring, key: ApiKey) -> None:
    st.markdown(f"**{plain(key.name)}**: they count from its next request on.")
    quota = choose_quota(f"quota-{key.id}", key.quota)
    if st.button("Save", type="primary", key="quota-saved"):
        with errors_shown():
            keys.set_quota(key.id, quota)
            _BOUND.close()


def _moment(epoch_s: float | None, zone: tzinfo) -> str:
    return "never" if epoch_s is None else local_datetime(epoch_s, zone).strftime("%Y-%m-%d %H:%M")


def _bound(count: int | None) -> str:
    return DASH if count is None else format_count(count)
