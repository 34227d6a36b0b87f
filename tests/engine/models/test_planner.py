from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from engine.config import Settings
from engine.errors import WeightsError
from engine.models.planner import Planner
from engine.models.spec import ModelSpec
from engine.telemetry.nvml import Nvml
from engine.weights.cache import WeightsCache
from engine.weights.pull import pull
from tests.engine.weights.hub_models import REPO
from tests.engine.weights.hub_server import HubServer, serve_hub


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with serve_hub() as server:
        yield server


@pytest.fixture
def planner(tmp_path: Path) -> Iterator[Planner]:
    with closing(Nvml()) as nvml:
        yield Planner(Settings(home=tmp_path), nvml, WeightsCache(tmp_path / "weights"))


def test_a_model_of_the_hub_is_planned_once_it_is_pulled(hub: HubServer, planner: Planner, tiny_folder: Path) -> None:
    commit = hub.publish(REPO, {file.name: file.read_bytes() for file in tiny_folder.iterdir()})
    spec = ModelSpec(REPO, device="cpu", context_length=64)
    with pytest.raises(WeightsError, match=f"'{REPO}' is not in the weights cache: pull it first"):
        planner.plan(spec)
    assert hub.seen == []
    assert planner.room(spec) is None
    pull(REPO, planner.cache, hub.door(), lambda _stage, _fraction: None)
    hub.seen.clear()
    plan, local = planner.plan(spec), planner.plan(ModelSpec(str(tiny_folder), device="cpu", context_length=64))
    assert (plan.name, plan.lines, plan.loading) == ("tiny", local.lines, local.loading)
    assert planner.plan(ModelSpec(f"{REPO}@{commit}", device="cpu", context_length=64)).lines == plan.lines
    assert hub.seen == []
