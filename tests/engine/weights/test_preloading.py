from __future__ import annotations

import threading

import pytest

from engine.weights.cache import WeightsCache
from engine.weights.preloading import Preloading
from tests.engine.weights.hub_models import model_files
from tests.engine.weights.hub_server import Fault, HubServer


@pytest.fixture(autouse=True)
def _environment(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)


def test_what_is_named_is_fetched_and_what_cannot_be_had_is_told(hub: HubServer, weights_cache: WeightsCache) -> None:
    hub.publish("acme/one", model_files(1))
    told: list[str] = []
    preloading = Preloading(("acme/none", "acme/one"), weights_cache, told.append)
    preloading.start()
    preloading.wait(30)
    assert [entry.name for entry in weights_cache.entries()] == ["acme/one"]
    (sentence,) = told
    assert sentence.startswith("acme/none was not preloaded: ")


def test_closing_stops_a_download(hub: HubServer, weights_cache: WeightsCache) -> None:
    hub.publish("acme/slow", model_files(1, num_bytes=2_000_000))
    hub.fail("model.safetensors", Fault(bytes_per_s=50_000))
    preloading = Preloading(("acme/slow",), weights_cache, lambda _reason: None)
    preloading.start()
    preloading.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "preload"]
    assert "acme/slow" not in [entry.name for entry in weights_cache.entries() if entry.kind.value == "download"]


def test_without_a_list_nothing_starts(weights_cache: WeightsCache) -> None:
    preloading = Preloading((), weights_cache, lambda _reason: None)
    preloading.start()
    preloading.close()
    assert not weights_cache.root.exists()
