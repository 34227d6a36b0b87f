"""What every page shows above its own content."""

from __future__ import annotations

import streamlit as st

from engine import Console


def show_notices(console: Console) -> None:
    """Things that went wrong without stopping the console, until they are over."""
    for notice in console.notices:
        st.warning(notice, icon=":material/warning:")
    if console.records.error:
        st.warning(console.records.error, icon=":material/warning:")
