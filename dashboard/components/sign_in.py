"""The sign-in that guards the pages when API keys are set: the same keys open both."""

from __future__ import annotations

import streamlit as st

from engine import Settings
from engine.api.auth import is_known_key

_SIGNED_IN = "is_signed_in"


def is_signed_in(settings: Settings) -> bool:
    """Whether this session may see the pages; without keys everyone on this machine may."""
    return not settings.api_keys or bool(st.session_state.get(_SIGNED_IN))


def show_sign_in(settings: Settings) -> None:
    """Ask for a key."""
    st.title("AutoGLM Console")
    with st.form("sign-in"):
        key = st.text_input("API key", type="password", help="One of the keys in CONSOLE_API_KEYS.")
        submitted = st.form_submit_button("Sign in")
    if not submitted:
        return
    if is_known_key(key, settings):
        st.session_state[_SIGNED_IN] = True
        st.rerun()
    st.error("That is not one of the configured keys: check for spaces, or look in CONSOLE_API_KEYS.")
