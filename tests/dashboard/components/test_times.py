from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
import streamlit as st

from dashboard.components.times import browser_zone, format_ago, format_moment, local_datetime

EPOCH_S = 1_700_000_000.0


def test_moment_is_in_the_readers_zone() -> None:
    assert format_moment(EPOCH_S, UTC) == "2023-11-14 22:13:20 UTC"
    assert format_moment(EPOCH_S, ZoneInfo("Europe/Berlin")) == "2023-11-14 23:13:20 CET"
    assert local_datetime(EPOCH_S, ZoneInfo("Asia/Shanghai")) == datetime(2023, 11, 15, 6, 13, 20)


@pytest.mark.parametrize(
    ("elapsed_s", "text"), [(0.4, "just now"), (-30, "just now"), (3.4, "3 s ago"), (185, "3 min 5 s ago")]
)
def test_ago(elapsed_s: float, text: str) -> None:
    assert format_ago(EPOCH_S, EPOCH_S + elapsed_s) == text


@pytest.mark.parametrize("name", [None, "", "Not/AZone", "../etc/passwd"])
def test_unknown_zone_is_utc(monkeypatch: pytest.MonkeyPatch, name: str | None) -> None:
    monkeypatch.setattr(type(st.context), "timezone", property(lambda _: name))
    assert browser_zone() is UTC


def test_known_zone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(st.context), "timezone", property(lambda _: "Europe/Berlin"))
    assert browser_zone() == ZoneInfo("Europe/Berlin")
