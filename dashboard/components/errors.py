"""How a page shows that something did not work."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import streamlit as st

from dashboard.components.formats import plain
from engine.errors import ConsoleError


@contextmanager
def errors_shown() -> Iterator[None]:
    """Show a ConsoleError as one message and go on after the block. Any other error is a bug and passes."""
    try:
        yield
    except ConsoleError as error:
        show_error(str(error))


def show_error(message: str) -> None:
    """One message, letter by letter."""
    st.error(plain(message), icon=":material/error:")
