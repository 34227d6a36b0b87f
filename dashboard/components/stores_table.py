"""What the console keeps on disk, where, and how large it is."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from pathlib import Path

import streamlit as st

from dashboard.components.formats import format_bytes, plain
from engine import Console
from engine.state import FILE_NAME as STATE_FILE

_PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"


def console_version(pyproject: Path = _PYPROJECT) -> str | None:
    """The version of the console's own tree; None where the file is not there or says none."""
    try:
        return str(tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]["version"])
    except (OSError, KeyError, ValueError):
        return None


def size_on_disk(paths: Iterable[Path]) -> int | None:
    """Bytes of the files and folders that exist; None when none of them does."""
    files = [file for path in paths if path.exists() for file in _files_under(path)]
    return sum(_size_of(file) for file in files) if files else None


def _files_under(path: Path) -> Iterable[Path]:
    return (path,) if path.is_file() else (file for file in path.rglob("*") if file.is_file())


def _size_of(file: Path) -> int:
    """0 for one that went away meanwhile: write-ahead logs come and go."""
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0


def with_logs(file: Path) -> list[Path]:
    """A database file with the logs that may lie beside it."""
    return [file, *(file.with_name(file.name + suffix) for suffix in (".wal", "-wal", "-shm"))]


def store_rows(console: Console) -> list[dict[str, str]]:
    """One row a store."""
    home = console.settings.home
    records, state, weights = console.records.path, home / STATE_FILE, home / "weights"
    in_memory = "in memory only, lost at the end"
    return [
        _row("Request history", in_memory if records is None else str(records), with_logs(records) if records else []),
        _row("Conversations", str(state), with_logs(state)),
        _row("Weights", str(weights), [weights]),
        _row("Home folder, all of it", str(home), [home]),
    ]


def _row(name: str, where: str, paths: list[Path]) -> dict[str, str]:
    return {"Store": f"**{name}**", "Path": plain(where), "On disk": format_bytes(size_on_disk(paths))}


def show_stores(console: Console) -> None:
    """The stores as a table."""
    import pandas as pd

    st.table(pd.DataFrame(store_rows(console)), hide_index=True, border="horizontal")
