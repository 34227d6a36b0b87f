from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from engine.errors import WeightsError
from engine.weights.acquire import acquire
from engine.weights.cache import WeightsCache
from engine.weights.cached import find_here
from engine.weights.gguf_header import read_gguf_header
from engine.weights.hub import Hub
from engine.weights.preview import DownloadSize, Preview, locate, measure_download, read_preview
from engine.weights.safetensors_header import MAX_HEADER_BYTES
from engine.weights.sources import HubId
from tests.engine.weights.hub_models import FAST, GGUF, REPO, WANTED, convert, ignore, model_files, safetensors
from tests.engine.weights.hub_server import Fault, HubServer, sha256

ID = HubId(REPO)
SHARD = "model-00001-of-00002.safetensors"
TEXTS = ("config.json", "processor_config.json")


def _preview(hub: HubServer, cache: WeightsCache, hub_id: HubId = ID) -> Preview:
    return read_preview(hub_id, TEXTS, cache, hub.door(), ignore)


def _measure(hub: HubServer, cache: WeightsCache, source: str = REPO) -> DownloadSize | None:
    return measure_download(source, cache, hub.door, ignore)


def _pack(header: object, num_bytes: int = 0, length: int | None = None) -> bytes:
    raw = json.dumps(header).encode()
    return (len(raw) if length is None else length).to_bytes(8, "little") + raw + bytes(num_bytes)


def test_headers_and_configs_come_without_the_weights(hub: HubServer, weights_cache: WeightsCache) -> None:
    files = model_files(num_bytes=3_000_000)
    commit = hub.publish(REPO, files)
    found = _preview(hub, weights_cache)
    entry = {"a": {"dtype": "U8", "shape": [3_000_000], "data_offsets": [0, 3_000_000]}}
    assert found.texts == {"config.json": files["config.json"]}
    assert found.headers == {SHARD: entry, SHARD.replace("1-of", "2-of"): entry}
    assert {seen.path.rpartition("/")[2] for seen in hub.seen if seen.where == "storage"} == set(found.headers)
    assert all(seen.headers["Range"] == "bytes=0-131071" for seen in hub.seen if seen.where == "storage")
    assert sum(file.stat().st_size for file in weights_cache.root.rglob("*") if file.is_file()) < 300_000
    assert weights_cache.entries() == ()
    hub.seen.clear()
    assert _preview(hub, weights_cache) == found
    assert _preview(hub, weights_cache, HubId(REPO, commit)) == found
    assert hub.seen == []


def test_a_gguf_file_is_read_as_far_as_its_header_goes(
    hub: HubServer, weights_cache: WeightsCache, tmp_path: Path
) -> None:
    (tmp_path / "m.gguf").write_bytes(GGUF)
    hub.publish(REPO, {"m.gguf": GGUF, "other.gguf": b"GGUF"})
    found = _preview(hub, weights_cache, replace(ID, gguf_name="m.gguf"))
    assert found == Preview(REPO, gguf=read_gguf_header(tmp_path / "m.gguf"))
    with pytest.raises(WeightsError, match=r"holds 2 \.gguf files: name one of them"):
        _preview(hub, weights_cache)
    with pytest.raises(WeightsError, match=r"^other\.gguf of acme/tiny cannot be read as a model: .*the hub's copy is"):
        _preview(hub, weights_cache, replace(ID, gguf_name="other.gguf"))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (_pack({}, length=MAX_HEADER_BYTES + 1), "header length is 33,554,433, and 2 to .*; the hub's copy is bad"),
        (_pack({}, 40, length=30), "its header is not JSON that can be read"),
        (
            _pack({"a": {"dtype": "U8", "shape": [9], "data_offsets": [0, 9]}}, 4),
            "header says .*: the file is cut short",
        ),
        (_pack({}, 4), "the file is damaged, the hub's copy is bad, name another revision"),
        (b"", "header length is 0"),
        (b"<html>", "is not a safetensors file"),
    ],
)
def test_a_header_that_cannot_be_true(hub: HubServer, weights_cache: WeightsCache, content: bytes, words: str) -> None:
    hub.publish(REPO, {"config.json": b"{}", "model.safetensors": content + bytes(0)})
    with pytest.raises(WeightsError, match=rf"^model\.safetensors of acme/tiny .*{words}"):
        _preview(hub, weights_cache)
    assert not list(weights_cache.root.rglob("*.heads/*.safetensors"))


def test_a_header_beyond_the_bound_is_not_fetched(hub: HubServer, weights_cache: WeightsCache) -> None:
    hub.publish(REPO, {"config.json": b"{}", "model.safetensors": b"\xff" * 40_000_000})
    with pytest.raises(WeightsError, match="header length is 18,446,744,073,709,551,615"):
        _preview(hub, weights_cache)
    assert len(hub.requests("model.safetensors")) == 1


def test_a_config_of_megabytes_is_refused(hub: HubServer, weights_cache: WeightsCache) -> None:
    hub.publish(REPO, {"config.json": bytes(5 << 20), "model.safetensors": safetensors()})
    with pytest.raises(WeightsError, match=r"config\.json of acme/tiny has 5,242,880 bytes, and at most 4,194,304"):
        _preview(hub, weights_cache)


@pytest.mark.parametrize(
    ("path", "fault", "words"),
    [
        ("api", Fault(status=404), r"has no such model: acme/tiny@main \(404\)"),
        ("api", Fault(status=401), r"set HF_TOKEN"),
        (
            SHARD,
            Fault(status=401, headers={"X-Error-Code": "GatedRepo"}),
            r"is gated \(401\): open http.*/acme/tiny, acc",
        ),
        ("config.json", Fault(status=503), "is in trouble itself"),
    ],
)
def test_a_hub_that_refuses_is_one_sentence(
    hub: HubServer, weights_cache: WeightsCache, path: str, fault: Fault, words: str
) -> None:
    hub.publish(REPO, model_files())
    hub.fail(path, fault)
    with pytest.raises(WeightsError, match=words) as refusal:
        _preview(hub, weights_cache)
    assert "\n" not in str(refusal.value)


def test_offline_is_said_at_once_and_asks_nothing(hub: HubServer, weights_cache: WeightsCache) -> None:
    hub.publish(REPO, model_files())
    offline = hub.door(offline_by="HF_HUB_OFFLINE=1")
    for read in (
        lambda: read_preview(ID, TEXTS, weights_cache, offline, ignore),
        lambda: measure_download(REPO, weights_cache, lambda: offline, ignore),
    ):
        with pytest.raises(WeightsError, match="is not in the weights cache, and the hub is switched off by HF_HUB_O"):
            read()
    assert hub.seen == []


def test_the_token_is_sent_to_the_hub_alone(hub: HubServer, weights_cache: WeightsCache) -> None:
    hub.token = "hf_secretsecret"
    hub.publish(REPO, model_files())
    door = Hub.from_environment({"HF_ENDPOINT": hub.endpoint, "HF_TOKEN": hub.token})
    assert read_preview(ID, TEXTS, weights_cache, door, ignore).headers
    assert not any("Authorization" in seen.headers for seen in hub.seen if seen.where == "storage")


def test_what_a_pull_would_download(hub: HubServer, weights_cache: WeightsCache) -> None:
    files = model_files(num_bytes=400_000)
    hub.publish(REPO, files)
    wanted_bytes = sum(len(files[path]) for path in WANTED)
    found = _measure(hub, weights_cache)
    assert found is not None
    assert (found.num_files, found.total_bytes, found.left_bytes) == (len(WANTED), wanted_bytes, wanted_bytes)
    assert found.free_bytes > 0
    assert str(found).startswith("pulling acme/tiny@main downloads 800 kB in 7 files; ")
    hub.publish("acme/other", {"config.json": b"{}", "model.safetensors": files[SHARD]})
    acquire("acme/other", weights_cache, convert, ignore, hub=hub.door(), retry=FAST)
    shared = _measure(hub, weights_cache)
    assert shared is not None
    assert (shared.total_bytes, shared.left_bytes) == (wanted_bytes, wanted_bytes - len(files[SHARD]))
    acquire(REPO, weights_cache, convert, ignore, hub=hub.door(), retry=FAST)
    assert _measure(hub, weights_cache) is None


def test_what_arrived_of_a_pull_is_not_downloaded_again(hub: HubServer, weights_cache: WeightsCache) -> None:
    files = model_files(num_bytes=400_000)
    hub.publish(REPO, files)
    hub.fail(SHARD, Fault(drop_after=150_000), *[Fault(status=404)] * 3)
    with pytest.raises(WeightsError):
        acquire(REPO, weights_cache, convert, ignore, hub=hub.door(), retry=FAST)
    found = _measure(hub, weights_cache)
    assert found is not None
    assert found.left_bytes is not None
    assert found.left_bytes <= len(files[SHARD]) * 2 - 150_000


def test_content_that_came_under_another_name_is_here(hub: HubServer, weights_cache: WeightsCache) -> None:
    commit = hub.publish(REPO, {"m.gguf": GGUF})
    hub.publish("acme/copy", {"other.gguf": GGUF})
    acquire(f"{REPO}@{commit}", weights_cache, convert, ignore, hub=hub.door(), retry=FAST)
    for source in (REPO, "acme/copy"):
        assert find_here(source, weights_cache).hub is not None
        assert _measure(hub, weights_cache, source) is None
        assert locate(source, weights_cache, hub.door, ignore).folder == weights_cache.root / sha256(GGUF)


def test_a_model_that_is_here_asks_nothing(weights_cache: WeightsCache, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")

    def open_hub() -> Hub:
        raise AssertionError

    assert measure_download(str(tmp_path), weights_cache, open_hub, ignore) is None


def test_sizes_that_the_hub_does_not_list(hub: HubServer, weights_cache: WeightsCache) -> None:
    hub.has_digests = False
    hub.publish(REPO, model_files())
    found = _measure(hub, weights_cache)
    assert found is not None
    assert (found.total_bytes, found.left_bytes, found.has_room) == (None, None, True)
    assert "downloads an unknown size in 7 files" in str(found)
    assert set(_preview(hub, weights_cache).headers) == {path for path in WANTED if path.endswith(".safetensors")}


def test_the_sentence_says_what_is_here_and_what_is_missing() -> None:
    size = DownloadSize("a/b@main", 1, 3_400_000_000, 3_100_000_000, 2_000_000_000, Path("/w"))
    assert not size.has_room
    assert str(size) == (
        "pulling a/b@main downloads 3.1 GB of 3.4 GB (the rest is here) in 1 file; 2 GB are free in /w, too little: "
        "free space there or set CONSOLE_HOME to another folder"
    )
