"""The settings page."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import SecretStr

from engine import Console, Settings
from engine.keyring import Keyring
from engine.state.api_keys import ApiKeyStore
from tests.pages.conftest import OpenPage, keep, recent, texts


def cells(page: object) -> list[dict[str, str]]:
    return [row for table in page.table for row in table.value.to_dict("records")]  # type: ignore[attr-defined]


def test_every_setting_is_shown_with_its_origin(open_page: OpenPage) -> None:
    rows = {row["Setting"].strip("`"): row for row in cells(open_page("settings")) if "Setting" in row}
    assert set(rows) == set(Settings.model_fields)
    assert rows["port"]["Value"] == "**8501**"
    assert rows["port"]["Comes from"] == "default"
    assert rows["model"]["Comes from"] == "command line"
    assert rows["threads"]["Value"] == "**unset**"


def test_origin_of_a_variable(console: Console, open_page: OpenPage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONSOLE_MAX_RUNNING", "4")
    console.settings = Settings(home=console.settings.home, model="none")
    rows = {row.get("Setting"): row for row in cells(open_page("settings"))}
    assert rows["`max_running`"]["Comes from"] == r"CONSOLE\_MAX\_RUNNING"


def test_secrets_are_never_shown(console: Console, open_page: OpenPage) -> None:
    console.settings = Settings(home=console.settings.home, model="none", api_keys=(SecretStr("sesame-7"),))
    console.keys.close()
    console.keys = Keyring(console.settings, ApiKeyStore(console.database), console.clock)
    page = open_page("settings")
    page.text_input[0].set_value("sesame-7")
    page.button[0].click().run()
    page.run()
    assert not page.exception
    shown = cells(page)
    assert next(row["Value"] for row in shown if row.get("Setting") == "`api_keys`") == "**1 set, hidden**"
    assert "sesame" not in str(shown)
    assert r"1 key of CONSOLE\_API\_KEYS opens everything" in texts(page)


def test_stores_with_their_sizes(console: Console, open_page: OpenPage) -> None:
    keep(console, recent(console))
    rows = {row["Store"]: row for row in cells(open_page("settings")) if "Store" in row}
    assert rows["**Request history**"]["Path"].endswith("measurements.duckdb")
    assert rows["**Request history**"]["On disk"].endswith("kB")
    assert rows["**Weights**"]["On disk"] == "–"


def test_version_and_how_to_change(open_page: OpenPage) -> None:
    page = open_page("settings")
    version = next(
        line.split('"')[1]
        for line in (Path(__file__).parents[2] / "pyproject.toml").read_text().splitlines()
        if line.startswith("version")
    )
    assert f"AutoGLM Console {version}" in texts(page)
    assert "CONSOLE_PORT" in texts(page)
