"""API keys, the settings in force, where they came from, and what the console keeps on disk."""

from __future__ import annotations

import streamlit as st

from dashboard.components.api_keys import show_api_keys
from dashboard.components.formats import DASH
from dashboard.components.settings_table import show_how_to_change, show_settings
from dashboard.components.stores_table import console_version, show_stores
from dashboard.resources import console

this = console()

st.title("Settings", anchor=False)
st.caption(f"AutoGLM Console {console_version() or DASH}")
st.subheader("API keys", anchor=False)
show_api_keys(this)
st.subheader("Settings in force", anchor=False)
show_how_to_change()
show_settings(this.settings)
st.subheader("Stores", anchor=False)
show_stores(this)
