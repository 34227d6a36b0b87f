"""The pages, in the order of the menu."""

from __future__ import annotations

from typing import TYPE_CHECKING

import streamlit as st

if TYPE_CHECKING:
    from streamlit.navigation.page import StreamlitPage

# (file under pages/, title, icon, section)
_PAGES = (
    ("overview", "Overview", ":material/dashboard:", "Console"),
    ("playground", "Playground", ":material/chat:", "Console"),
    ("models", "Models", ":material/deployed_code:", "Models"),
    ("weights", "Weights", ":material/verified_user:", "Models"),
    ("quantization", "Quantization", ":material/science:", "Models"),
    ("serving", "Serving", ":material/alt_route:", "Operations"),
    ("latency", "Latency", ":material/timer:", "Operations"),
    ("telemetry", "Telemetry", ":material/monitoring:", "Operations"),
    ("environment", "Environment", ":material/health_and_safety:", "Operations"),
    ("settings", "Settings", ":material/settings:", "Operations"),
)


def build_pages() -> dict[str, list[StreamlitPage]]:
    """Pages by section. The overview is the landing page and every page has its own address."""
    sections: dict[str, list[StreamlitPage]] = {}
    for name, title, icon, section in _PAGES:
        page = st.Page(f"../pages/{name}.py", title=title, icon=icon, url_path=name, default=name == "overview")
        sections.setdefault(section, []).append(page)
    return sections
