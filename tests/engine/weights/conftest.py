from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.weights.cache import WeightsCache
from tests.engine.weights.hub_server import HubServer, serve_hub


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with serve_hub() as server:
        yield server


@pytest.fixture
def weights_cache(tmp_path: Path) -> WeightsCache:
    return WeightsCache(tmp_path / "home" / "weights")
