"""What is there, what goes, and the bound: with real files of a real download."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from engine.errors import WeightsError
from engine.weights.acquire import Acquired, acquire
from engine.weights.cache import WeightsCache
from engine.weights.inventory import EntryKind
from tests.engine.weights.hub_models import FAST, GGUF, REPO, convert, ignore, model_files
from tests.engine.weights.hub_server import Fault, HubServer, sha256

_HOLD = """
import sys
from pathlib import Path
from engine.weights.lease import lease_folder
lease = lease_folder(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


def _get(cache: WeightsCache, hub: HubServer, source: str = REPO) -> Acquired:
    return acquire(source, cache, convert, ignore, hub=hub.door(), retry=FAST)


def _age(acquired: Acquired, used_s: float) -> None:
    acquired.lease.close()
    os.utime(acquired.folder, (used_s, used_s))


def test_what_is_there(hub: HubServer, weights_cache: WeightsCache) -> None:
    assert weights_cache.entries() == ()
    commit = hub.publish(REPO, model_files())
    gguf_commit = hub.publish("acme/tiny-GGUF", {"tiny.gguf": GGUF})
    model, unpacked = _get(weights_cache, hub), _get(weights_cache, hub, "acme/tiny-GGUF")
    unpacked.lease.close()
    found = {entry.id: entry for entry in weights_cache.entries()}
    assert set(found) == {f"{REPO}@{commit}", f"acme/tiny-GGUF@{gguf_commit}:tiny.gguf", sha256(GGUF)}
    mine = found[f"{REPO}@{commit}"]
    assert (mine.kind, mine.name, mine.revision, mine.is_in_use) == (EntryKind.DOWNLOAD, REPO, commit[:12], True)
    assert mine.size_bytes == sum(file.size_bytes for file in model.files)
    conversion = found[sha256(GGUF)]
    assert (conversion.kind, conversion.name, conversion.is_in_use) == (EntryKind.CONVERSION, "tiny", False)
    assert unpacked.revision == gguf_commit[:12]


def test_removing(hub: HubServer, weights_cache: WeightsCache) -> None:
    hub.publish(REPO, model_files())
    hub.publish("other/copy", {**model_files(), "config.json": b'{"copy": 1}'})
    first, second = _get(weights_cache, hub), _get(weights_cache, hub, "other/copy")
    first_id = f"{REPO}@{first.folder.name}"
    with pytest.raises(WeightsError, match="is in use: unload the model"):
        weights_cache.remove(first_id)
    first.lease.close()
    freed_bytes = weights_cache.remove(first_id)
    assert freed_bytes == len(model_files()["config.json"]), "the rest is shared"
    assert all(len(file.read_bytes()) for file in second.folder.iterdir())
    with pytest.raises(WeightsError, match="has no entry"):
        weights_cache.remove(first_id)
    second.lease.close()
    assert weights_cache.remove(f"other/copy@{second.folder.name}") == sum(file.size_bytes for file in second.files)
    assert not list(weights_cache.root.glob("blobs/*"))
    assert _get(weights_cache, hub).folder == first.folder


def test_the_least_used_makes_room(hub: HubServer, tmp_path: Path) -> None:
    cache = WeightsCache(tmp_path / "w", max_bytes=20_000)
    for index, repo in enumerate(("acme/one", "acme/two", "acme/three")):
        hub.publish(repo, model_files(seed=index))
    one, two = _get(cache, hub, "acme/one"), _get(cache, hub, "acme/two")
    _age(one, 2_000)
    _age(two, 1_000)
    three = _get(cache, hub, "acme/three")
    assert {entry.name for entry in cache.entries()} == {"acme/one", "acme/three"}
    assert sum(blob.stat().st_size for blob in cache.root.glob("blobs/*")) <= 20_000
    assert three.folder.is_dir()


def test_what_is_in_use_stays_though_there_is_no_room(hub: HubServer, tmp_path: Path) -> None:
    cache = WeightsCache(tmp_path / "w", max_bytes=10_000)
    hub.publish("acme/one", model_files(seed=1))
    hub.publish("acme/two", model_files(seed=2))
    one = _get(cache, hub, "acme/one")
    with subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(one.folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        one.lease.close()
        with pytest.raises(WeightsError, match=r"needs 8\.\d kB and the weights cache may hold 10 kB: .* are missing"):
            _get(cache, hub, "acme/two")
        assert one.folder.is_dir()
        process.communicate("")
    assert _get(cache, hub, "acme/two").folder.is_dir()
    assert not one.folder.exists()


def test_a_model_larger_than_the_bound_evicts_nothing(hub: HubServer, tmp_path: Path) -> None:
    cache = WeightsCache(tmp_path / "w", max_bytes=10_000)
    hub.publish("acme/one", model_files(seed=1))
    hub.publish("acme/large", model_files(seed=2, num_bytes=50_000))
    _age(_get(cache, hub, "acme/one"), 1_000)
    with pytest.raises(WeightsError, match="raise CONSOLE_WEIGHTS_MAX_GIB"):
        _get(cache, hub, "acme/large")
    assert "acme/one" in {entry.name for entry in cache.entries()}


def test_unpacking_keeps_the_bound(hub: HubServer, tmp_path: Path) -> None:
    cache = WeightsCache(tmp_path / "w", max_bytes=4_000)
    hub.publish("acme/tiny-GGUF", {"tiny.gguf": GGUF})
    acquired = _get(cache, hub, "acme/tiny-GGUF")
    acquired.lease.close()
    _get(cache, hub, "acme/tiny-GGUF").lease.close()
    cache.keep_bound()
    assert {entry.kind for entry in cache.entries()} == {EntryKind.CONVERSION}, "the GGUF file was used before"


def test_what_is_unfinished_is_listed_and_can_be_removed(hub: HubServer, weights_cache: WeightsCache) -> None:
    hub.publish(REPO, model_files(num_bytes=50_000))
    hub.fail("model-00001-of-00002.safetensors", Fault(drop_after=20_000), Fault(status=404))
    with pytest.raises(WeightsError):
        _get(weights_cache, hub)
    entries = weights_cache.entries()
    assert {entry.kind for entry in entries} == {EntryKind.UNFINISHED}
    assert max(entry.size_bytes for entry in entries) >= 20_000
    for entry in entries:
        weights_cache.remove(entry.id)
    assert weights_cache.entries() == ()
    assert _get(weights_cache, hub).folder.is_dir()
