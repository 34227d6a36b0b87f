from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from engine.config import Settings
from engine.models.planner import Planner
from engine.models.spec import ModelSpec
from engine.telemetry.nvml import Nvml
from engine.weights.cache import WeightsCache
from engine.weights.pull import pull
from engine.weights.sources import find_source
from tests.engine.weights.hub_models import REPO
from tests.engine.weights.hub_server import HubServer, serve_hub
from tests.vision_models import save_tiny_glm4v


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with serve_hub() as server:
        yield server


@pytest.fixture
def planner(tmp_path: Path, hub: HubServer) -> Iterator[Planner]:
    with closing(Nvml()) as nvml:
        yield Planner(Settings(home=tmp_path), nvml, WeightsCache(tmp_path / "weights"), hub.door)


def _spec(source: str) -> ModelSpec:
    return ModelSpec(source, device="cpu", context_length=64)


def _publish(hub: HubServer, folder: Path) -> str:
    return hub.publish(REPO, {file.name: file.read_bytes() for file in folder.iterdir()})


def test_a_model_is_planned_alike_at_the_hub_in_the_cache_and_in_a_folder(
    hub: HubServer, planner: Planner, tiny_folder: Path
) -> None:
    commit = _publish(hub, tiny_folder)
    told: list[str] = []
    at_hub = planner.plan(_spec(REPO), on_progress=lambda *now: told.append(now[0]))
    local = planner.plan(_spec(str(tiny_folder)))
    assert (at_hub.name, at_hub.lines, at_hub.loading) == ("tiny", local.lines, local.loading)
    assert f"reading headers at {hub.endpoint}: 1 of 1 files" in told
    assert planner.cache.entries() == ()
    pull(REPO, planner.cache, hub.door(), lambda _stage, _fraction: None)
    hub.seen.clear()
    assert planner.plan(_spec(REPO)).lines == local.lines
    assert planner.plan(_spec(f"{REPO}@{commit}")).lines == local.lines
    assert planner.download(REPO) is None
    assert hub.seen == []


def test_a_model_that_sees_is_planned_with_its_largest_image(hub: HubServer, planner: Planner, tmp_path: Path) -> None:
    folder = save_tiny_glm4v(tmp_path / "phone")
    _publish(hub, folder)
    at_hub, local = planner.plan(_spec(REPO)), planner.plan(_spec(str(folder)))
    assert at_hub.lines == local.lines
    assert any("image" in line.what for line in at_hub.lines)


@pytest.mark.model
def test_a_gguf_file_of_the_hub(hub: HubServer, planner: Planner) -> None:
    file = find_source("sample").gguf_file
    assert file is not None
    hub.publish(REPO, {file.name: file.read_bytes()})
    at_hub, local = planner.plan(_spec(REPO)), planner.plan(_spec("sample"))
    assert (at_hub.lines, at_hub.loading) == (local.lines, local.loading)
    fetched = sum(stored.stat().st_size for stored in planner.cache.root.rglob(f"*.heads/{file.name}"))
    assert 0 < fetched < file.stat().st_size / 10


def test_room_is_that_of_the_plan_and_unknown_where_the_hub_does_not_answer(
    hub: HubServer, planner: Planner, tiny_folder: Path
) -> None:
    _publish(hub, tiny_folder)
    room = planner.room(_spec(REPO))
    assert room is not None
    assert room.needed_bytes == planner.plan(_spec(REPO)).needed_bytes
    assert planner.room(_spec("acme/nobody")) is None
