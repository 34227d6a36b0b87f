"""Moments in the time zone of whoever reads the page."""

from __future__ import annotations

from datetime import UTC, datetime, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import streamlit as st

from dashboard.components.formats import format_whole_seconds

_JUST_NOW_S = 1.0


def browser_zone() -> tzinfo:
    """The reader's time zone; UTC where the browser names none that is known here."""
    name = st.context.timezone
    try:
        return ZoneInfo(name) if name else UTC
    except (ZoneInfoNotFoundError, ValueError):
        return UTC


def local_datetime(epoch_s: float, zone: tzinfo) -> datetime:
    """The moment on the reader's clock, without its zone: what tables and axes show unchanged."""
    return datetime.fromtimestamp(epoch_s, zone).replace(tzinfo=None)


def format_moment(epoch_s: float, zone: tzinfo) -> str:
    """`2026-01-31 14:03:22 CET`."""
    return datetime.fromtimestamp(epoch_s, zone).strftime("%Y-%m-%d %H:%M:%S %Z")


def format_ago(then_s: float, now_s: float) -> str:
    """`3 min 5 s ago`; a clock that was set back reads as now."""
    elapsed_s = now_s - then_s
    return "just now" if elapsed_s < _JUST_NOW_S else f"{format_whole_seconds(elapsed_s)} ago"
