"""Making a key pair to sign models with."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from dashboard.components.errors import show_error
from dashboard.components.formats import plain
from engine.errors import WeightsError
from engine.weights.keys import KeyPair, generate_key_pair

_FILE, _PASSWORD, _AGAIN = "keygen-file", "keygen-password", "keygen-again"
_MADE = "keygen-made"


def show_signing_key_form() -> None:
    """Ask for a file and a password, and make the pair; what came of it stays until the next one."""
    with st.expander("Make a key pair", icon=":material/key:"), st.form("keygen"):
        st.text_input(
            "Private key",
            key=_FILE,
            placeholder="/home/me/keys/models.pem",
            help="A new file on the console's machine; the public key comes beside it, with the suffix .pub.",
        )
        st.text_input("Password", type="password", key=_PASSWORD, help="Whoever signs with the key must type it.")
        st.text_input("Password again", type="password", key=_AGAIN)
        st.form_submit_button("Make key pair", key="keygen-submit", on_click=_make)
    made = st.session_state.get(_MADE)
    if isinstance(made, KeyPair):
        _show_made(made)
    elif made is not None:
        show_error(made)


def _show_made(made: KeyPair) -> None:
    st.success(
        f"Made {plain(str(made.private_key))}, which only its owner can read, and {plain(str(made.public_key))}.",
        icon=":material/key:",
    )
    st.caption(
        f"Public key `{made.fingerprint}`. Models signed with this pair are taken as genuine where "
        "`CONSOLE_SIGNATURE_KEYS` names its public key."
    )


def _make() -> None:
    """Make the pair; the session forgets the password."""
    state = st.session_state
    file, password, again = state[_FILE].strip(), state[_PASSWORD], state[_AGAIN]
    state[_PASSWORD] = state[_AGAIN] = ""
    state[_MADE] = _make_pair(file, password, again)


def _make_pair(file: str, password: str, again: str) -> KeyPair | str:
    """The pair, or why there is none."""
    if not file:
        return "Private key is empty: give the path of a new file on the console's machine."
    if not password:
        return "Password is empty: type one, so that a copied file alone signs nothing."
    if password != again:
        return "The two passwords differ: type the same one twice."
    try:
        return generate_key_pair(Path(file).expanduser(), password)
    except WeightsError as error:
        return str(error)
