"""The settings in force and where each came from."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import streamlit as st

from dashboard.components.formats import DASH, plain
from engine import Settings, load_settings
from engine.config import ENV_PREFIX, config_file
from engine.errors import SettingsError

# A setting that is named in no group is shown under the last heading, so that none can be forgotten.
_GROUPS: dict[str, tuple[str, ...]] = {
    "Server": ("host", "port", "api_keys", "home", "log_level", "log_format", "log_prompts"),
    "Model": ("model", "model_name", "device", "dtype", "threads"),
    "Serving limits": (
        "max_running",
        "max_waiting",
        "max_waiting_tokens",
        "queue_policy",
        "queue_timeout_s",
        "chunk_tokens",
        "kv_cache_gib",
        "prefix_cache_gib",
        "prefix_sharing",
        "default_max_tokens",
        "request_timeout_s",
        "max_body_mib",
        "body_timeout_s",
        "response_cache_mib",
        "response_cache_ttl_s",
    ),
    "Objectives": ("objective_ttft_p95_s", "objective_tpot_p95_s", "objective_e2e_p95_s"),
    "Telemetry": ("telemetry_interval_s",),
}
_REST = "Others"


@dataclass(frozen=True, slots=True)
class Sources:
    """What the settings were made of: variables, the lines of the TOML file, and what those two alone come to."""

    variables: frozenset[str]
    file: Path | None
    file_names: frozenset[str]
    configured: Settings | None


def read_sources(environ: Mapping[str, str] = os.environ) -> Sources:
    """Read the sources again; a file that has been broken since the start tells nothing."""
    variables = frozenset(name.upper() for name in environ)
    file = config_file()
    try:
        file_names = frozenset(tomllib.loads(file.read_text(encoding="utf-8"))) if file is not None else frozenset()
        return Sources(variables, file, file_names, load_settings())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, SettingsError):
        return Sources(variables, file, frozenset(), None)


def origin_of(name: str, settings: Settings, sources: Sources) -> str:
    """`default`, the variable, the file, or the command line when none of those gives this value."""
    if name not in settings.model_fields_set:
        return "default"
    if sources.configured is not None and getattr(sources.configured, name) == getattr(settings, name):
        variable = f"{ENV_PREFIX}{name.upper()}"
        if variable in sources.variables:
            return variable
        if name in sources.file_names and sources.file is not None:
            return str(sources.file)
    return "command line"


def show_value(value: Any) -> str:
    """The value as text, secrets as their number only."""
    if isinstance(value, tuple):
        return f"{len(value)} set, hidden" if value else "none"
    return "unset" if value is None else str(value)


def group_names() -> dict[str, list[str]]:
    """The names of all settings by group, in the order they are shown."""
    grouped = {name for names in _GROUPS.values() for name in names}
    rest = [name for name in Settings.model_fields if name not in grouped]
    groups = {group: list(names) for group, names in _GROUPS.items()}
    return {**groups, _REST: rest} if rest else groups


def setting_rows(names: list[str], settings: Settings, sources: Sources) -> list[dict[str, str]]:
    """One row a setting."""
    return [
        {
            "Setting": f"`{name}`",
            "Value": f"**{plain(show_value(getattr(settings, name)))}**",
            "What it is": plain(Settings.model_fields[name].description or DASH),
            "Comes from": plain(origin_of(name, settings, sources)),
        }
        for name in names
    ]


def show_settings(settings: Settings) -> None:
    """A table a group."""
    import pandas as pd

    sources = read_sources()
    for group, names in group_names().items():
        st.subheader(group, anchor=False)
        st.table(pd.DataFrame(setting_rows(names, settings, sources)), hide_index=True, border="horizontal")


def show_how_to_change() -> None:
    """The three ways to another value, strongest first."""
    with st.expander("How to change a setting", icon=":material/edit:"):
        st.markdown(
            "Settings are read once, when the console starts: change them and start it again. The first of these that"
            " names a setting wins.\n\n"
            "1. The command line: `python -m dashboard --port 8600` (a few settings; `--help` lists them)\n"
            f"2. A variable: `{ENV_PREFIX}PORT=8600`\n"
            f"3. A line in `console.toml` in the folder that the console is started from, or in the file that"
            f" `{ENV_PREFIX}CONFIG` names: `port = 8600`\n\n"
            "A value out of bounds is refused at the start with its name and its bound."
        )
