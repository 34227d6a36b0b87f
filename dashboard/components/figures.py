"""Plotly, imported when the first chart is drawn: it takes long, and not every page has one."""

from __future__ import annotations

from typing import Any


def graph_objects() -> Any:
    """`plotly.graph_objects`. Plotly looks whether pandas is imported and then uses it, though another session may be
    half way through importing it; so it is imported first, which waits for that session."""
    import pandas  # noqa: F401
    import plotly.graph_objects

    return plotly.graph_objects
