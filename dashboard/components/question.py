"""Questions in dialogs. What was clicked is remembered over reruns, so a dialog stays until it is answered, also where
the click came from a fragment that refreshes by itself and would wipe it away."""

from __future__ import annotations

import streamlit as st


class Question:
    """One question about one thing at a time; `key` is where the session remembers which."""

    def __init__(self, key: str) -> None:
        self._key = key

    def ask(self, about: str) -> None:
        """Ask it about that thing, from the next run of the page on."""
        st.session_state[self._key] = about

    @property
    def about(self) -> str | None:
        """The thing that it is asked about; None while it is not asked."""
        about: str | None = st.session_state.get(self._key)
        return about

    def forget(self) -> None:
        """It is answered, or was dismissed."""
        st.session_state.pop(self._key, None)

    def close(self) -> None:
        """Forget it and draw the page again, without the dialog."""
        self.forget()
        st.rerun()

    def is_confirmed(self, label: str, refusal: str, key: str) -> bool:
        """Draw the two answers; whether the first was given just now. The second one closes the dialog."""
        with st.container(horizontal=True):
            is_confirmed = st.button(label, type="primary", key=f"{key}-confirmed")
            is_refused = st.button(refusal, key=f"{key}-refused")
        if is_refused:
            self.close()
        return is_confirmed
