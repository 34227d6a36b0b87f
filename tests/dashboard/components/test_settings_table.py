from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import SecretStr

from dashboard.components.settings_table import Sources, group_names, origin_of, read_sources, show_value
from engine import Settings, load_settings


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The TOML file in force, still empty."""
    made = tmp_path / "own.toml"
    made.write_text("")
    monkeypatch.setenv("CONSOLE_CONFIG", str(made))
    return made


def test_every_setting_is_in_exactly_one_group() -> None:
    names = [name for group in group_names().values() for name in group]
    assert sorted(names) == sorted(Settings.model_fields)


def test_default() -> None:
    assert origin_of("port", load_settings(), read_sources()) == "default"


def test_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONSOLE_PORT", "8600")
    assert origin_of("port", load_settings(), read_sources()) == "CONSOLE_PORT"


def test_file(file: Path) -> None:
    file.write_text("port = 8600")
    assert origin_of("port", load_settings(), read_sources()) == str(file)


def test_variable_wins_over_the_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text("port = 8600")
    monkeypatch.setenv("CONSOLE_PORT", "8700")
    assert origin_of("port", load_settings(), read_sources()) == "CONSOLE_PORT"


def test_command_line_wins_over_both(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text("port = 8600")
    monkeypatch.setenv("CONSOLE_PORT", "8700")
    assert origin_of("port", load_settings({"port": 8800}), read_sources()) == "command line"


@pytest.mark.parametrize("content", ["port = ", "port = 0", "\xff"])
def test_file_broken_since_the_start_breaks_nothing(file: Path, content: str) -> None:
    settings = load_settings({"port": 8600})
    file.write_bytes(content.encode("latin-1"))
    sources = read_sources()
    assert sources.configured is None
    assert origin_of("port", settings, sources) == "command line"
    assert origin_of("host", settings, sources) == "default"


def test_secrets_are_counted_not_shown() -> None:
    assert show_value((SecretStr("sesame"), SecretStr("other"))) == "2 set, hidden"
    assert show_value(()) == "none"
    assert show_value(None) == "unset"
    assert show_value(0) == "0"


def test_sources_without_a_file() -> None:
    sources = Sources(frozenset({"CONSOLE_PORT"}), None, frozenset(), Settings(port=8600))
    assert origin_of("port", Settings(port=8600), sources) == "CONSOLE_PORT"
