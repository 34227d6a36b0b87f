"""The sign-in that guards the pages where there are API keys: one with the scope `admin` opens them."""

from __future__ import annotations

import streamlit as st

from dashboard.components.errors import errors_shown, show_error
from engine import Console
from engine.keyring import Keyring
from engine.state.api_keys import Scope

_KEY_ID = "signed_in_key"


def is_signed_in(console: Console) -> bool:
    """Whether this session may see the pages. A key that is revoked or expires takes its sessions with it."""
    if not console.keys.is_guarded(Scope.ADMIN):
        return True
    key_id: str | None = st.session_state.get(_KEY_ID)
    return key_id is not None and console.keys.may(key_id, Scope.ADMIN)


def sign_in(key_id: str) -> None:
    """Let this session in with that key, as long as the key may."""
    st.session_state[_KEY_ID] = key_id


def signed_in_key() -> str | None:
    """The key that this session came in with; None where it needed none."""
    key_id: str | None = st.session_state.get(_KEY_ID)
    return key_id


def show_sign_in(console: Console) -> None:
    """Ask for a key."""
    st.title("AutoGLM Console", anchor=False)
    with st.form("sign-in"):
        secret = st.text_input(
            "API key", type="password", help="A key with the scope admin: from the settings page or CONSOLE_API_KEYS."
        )
        is_submitted = st.form_submit_button("Sign in")
    if not is_submitted:
        return
    with errors_shown():
        _try_to_sign_in(console.keys, secret.strip())


def _try_to_sign_in(keys: Keyring, secret: str) -> None:
    caller = keys.identify(secret)
    if Scope.ADMIN in caller.scopes and caller.key_id is not None:
        sign_in(caller.key_id)
        st.rerun()
    show_error(f"The key {caller.name!r} has not the scope admin, which the pages need: use one that has it.")
