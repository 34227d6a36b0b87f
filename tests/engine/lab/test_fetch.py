"""Models of the hub, fetched before an experiment: over a hub on loopback."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.errors import WeightsError
from engine.lab.fetch import fetch_from_hub
from engine.weights.cache import WeightsCache
from tests.engine.weights.hub_models import GGUF, REPO, contents, ignore, model_files
from tests.engine.weights.hub_server import HubServer, serve_hub


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    monkeypatch.delenv("HF_HUB_OFFLINE")
    with serve_hub() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.endpoint)
        yield server


@pytest.fixture
def cache(tmp_path: Path) -> WeightsCache:
    return WeightsCache(tmp_path / "weights")


def test_what_is_here_is_left_as_it_is(tiny_folder: Path, cache: WeightsCache) -> None:
    source, lease = fetch_from_hub(str(tiny_folder), cache, ignore)
    assert (source, lease.is_held) == (str(tiny_folder), False)


def test_a_model_is_fetched_pinned_and_held(hub: HubServer, cache: WeightsCache) -> None:
    commit = hub.publish(REPO, model_files(1))
    stages: list[str] = []
    source, lease = fetch_from_hub(REPO, cache, lambda stage, _fraction: stages.append(stage))
    assert source == f"{REPO}@{commit}"
    assert lease.is_held
    assert stages
    hub.publish(REPO, model_files(2))
    assert fetch_from_hub(source, cache, ignore)[0] == source
    lease.close()


def test_a_gguf_file_is_fetched_and_not_unpacked(hub: HubServer, cache: WeightsCache) -> None:
    commit = hub.publish(REPO, {"tiny.gguf": GGUF})
    source, _ = fetch_from_hub(f"{REPO}:tiny.gguf", cache, ignore)
    assert source == f"{REPO}@{commit}:tiny.gguf"
    assert "tiny.gguf" in {Path(name).name for name in contents(cache.root)}
    assert not list(cache.root.rglob("model.safetensors"))


def test_offline_it_is_one_sentence(monkeypatch: pytest.MonkeyPatch, cache: WeightsCache) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(WeightsError, match="acme/tiny@main is not in the weights cache, and the hub is switched off"):
        fetch_from_hub(REPO, cache, ignore)
