"""The entrypoint of every session: frame, sign-in, then the page asked for."""

from __future__ import annotations

import streamlit as st

from dashboard.components.frame import show_notices
from dashboard.components.sign_in import is_signed_in, show_sign_in
from dashboard.navigation import build_pages
from dashboard.resources import console

st.set_page_config(page_title="AutoGLM Console", page_icon=":material/neurology:", layout="wide")

page = st.navigation(build_pages())
if is_signed_in(console()):
    show_notices(console())
    page.run()
else:
    show_sign_in(console())
