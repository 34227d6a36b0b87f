from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.state.database import Database, open_database, sqlite_url


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    """An empty state database."""
    with open_database(sqlite_url(tmp_path / "state.sqlite")) as one:
        yield one
