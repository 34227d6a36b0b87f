from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.errors import WeightsError
from engine.weights.acquire import Acquired, acquire
from engine.weights.cache import WeightsCache
from engine.weights.inventory import EntryKind
from engine.weights.preview import read_preview
from engine.weights.sources import HubId
from engine.weights.upkeep import discard, repair, verify
from tests.engine.weights.hub_models import FAST, GGUF, REPO, WANTED, contents, convert, ignore, model_files
from tests.engine.weights.hub_server import Fault, HubServer, sha256
from tests.fakes import FakeClock

SHARD = "model-00001-of-00002.safetensors"
_DOWNLOAD = """
import sys
from pathlib import Path
from engine.weights.acquire import acquire
from engine.weights.cache import WeightsCache
from engine.weights.hub import Hub
from tests.engine.weights.hub_models import convert

print("begun", flush=True)
for source in sys.argv[3:]:
    acquire(source, WeightsCache(Path(sys.argv[1])), convert, lambda *_: None, hub=Hub(sys.argv[2]))
"""


def _get(cache: WeightsCache, hub: HubServer, source: str = REPO) -> Acquired:
    return acquire(source, cache, convert, ignore, hub=hub.door(), retry=FAST)


def _links(root: Path) -> dict[str, int]:
    return {blob.name: blob.stat().st_nlink for blob in (root / "blobs").glob("*")}


def _damage(file: Path) -> None:
    """Change one byte where it lies, as a bad disk does."""
    file.chmod(0o644)
    with file.open("r+b") as stream:
        stream.seek(-1, os.SEEK_END)
        last = stream.read(1)
        stream.seek(-1, os.SEEK_END)
        stream.write(bytes([last[0] ^ 1]))


def test_a_whole_cache(hub: HubServer, weights_cache: WeightsCache) -> None:
    hub.publish(REPO, model_files())
    hub.publish("acme/tiny-GGUF", {"tiny.gguf": GGUF})
    _get(weights_cache, hub)
    _get(weights_cache, hub, "acme/tiny-GGUF")
    fractions: list[float | None] = []
    assert verify(weights_cache, lambda _stage, fraction: fractions.append(fraction)) == ()
    assert fractions[-1] == 1.0
    assert repair(weights_cache) == ()
    assert verify(WeightsCache(weights_cache.root / "none"), ignore) == ()
    assert repair(WeightsCache(Path("/nowhere"))) == ()


def test_a_damaged_file_is_found_and_it_alone_fetched_again(hub: HubServer, weights_cache: WeightsCache) -> None:
    files = model_files()
    hub.publish(REPO, files)
    acquired = _get(weights_cache, hub)
    _damage(acquired.folder / SHARD)
    (damage,) = verify(weights_cache, ignore)
    assert (damage.folder, damage.path) == (acquired.folder, SHARD)
    assert "its content changed" in damage.reason
    with pytest.raises(WeightsError, match="is in use: unload the model"):
        discard(weights_cache, damage.folder, damage.path)
    acquired.lease.close()
    discard(weights_cache, damage.folder, damage.path)
    hub.seen.clear()
    assert contents(_get(weights_cache, hub).folder) == {path: files[path] for path in WANTED}
    assert [seen.path.rpartition("/")[2] for seen in hub.seen if seen.where == "storage"] == [SHARD]
    assert not hub.requests("config.json")
    assert verify(weights_cache, ignore) == ()


def test_damage_of_a_shared_file_is_found_in_each_model(hub: HubServer, weights_cache: WeightsCache) -> None:
    hub.publish(REPO, model_files())
    hub.publish("other/copy", {**model_files(), "config.json": b"{}"})
    first, second = _get(weights_cache, hub), _get(weights_cache, hub, "other/copy")
    _damage(first.folder / SHARD)
    assert {damage.folder for damage in verify(weights_cache, ignore)} == {first.folder, second.folder}
    for acquired in (first, second):
        acquired.lease.close()
        discard(weights_cache, acquired.folder, SHARD)
    for source in (REPO, "other/copy"):
        _get(weights_cache, hub, source)
    assert verify(weights_cache, ignore) == ()


def test_damaged_unpacked_weights_are_unpacked_again(hub: HubServer, weights_cache: WeightsCache) -> None:
    hub.publish("acme/tiny-GGUF", {"tiny.gguf": GGUF})
    acquired = _get(weights_cache, hub, "acme/tiny-GGUF")
    _damage(acquired.folder / "model.safetensors")
    (damage,) = verify(weights_cache, ignore)
    assert damage.path == "model.safetensors"
    acquired.lease.close()
    discard(weights_cache, damage.folder, damage.path)
    again = _get(weights_cache, hub, "acme/tiny-GGUF")
    assert (again.folder / "model.safetensors").read_bytes() == GGUF[4:]
    assert verify(weights_cache, ignore) == ()


def test_weights_unpacked_before_digests_were_kept(weights_cache: WeightsCache) -> None:
    folder = weights_cache.root / sha256(b"old")
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(bytes(5))
    (damage,) = verify(weights_cache, ignore)
    assert damage.entry_id == folder.name


def test_a_folder_outside_is_nobodys(weights_cache: WeightsCache, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="is not in the weights cache"):
        discard(weights_cache, tmp_path, "config.json")


@pytest.mark.parametrize("harm", [Path.unlink, lambda file: (file.unlink(), file.write_bytes(b"cut"))])
def test_a_file_that_went_is_fetched_again(
    hub: HubServer, weights_cache: WeightsCache, harm: Callable[[Path], object]
) -> None:
    files = model_files()
    hub.publish(REPO, files)
    acquired = _get(weights_cache, hub)
    acquired.lease.close()
    harm(acquired.folder / SHARD)
    done = repair(weights_cache)
    assert any(f"lacks {SHARD}" in line for line in done)
    assert contents(_get(weights_cache, hub).folder) == {path: files[path] for path in WANTED}


def test_what_was_given_up_goes_after_a_week(hub: HubServer, weights_cache: WeightsCache) -> None:
    hub.publish(REPO, model_files(num_bytes=50_000))
    hub.fail(SHARD, Fault(drop_after=20_000), Fault(status=404))
    with pytest.raises(WeightsError):
        _get(weights_cache, hub)
    repair(weights_cache)
    assert {entry.kind for entry in weights_cache.entries()} == {EntryKind.UNFINISHED}
    for entry in weights_cache.entries():
        os.utime(entry.path, (0, 0))
    done = repair(weights_cache)
    assert any("given up long ago" in line for line in done)
    assert weights_cache.entries() == ()
    assert _links(weights_cache.root) == {}
    assert not list((weights_cache.root / "partial").iterdir())


def test_leftovers_of_every_kind(hub: HubServer, weights_cache: WeightsCache) -> None:
    hub.publish(REPO, model_files())
    acquired = _get(weights_cache, hub)
    root = weights_cache.root
    (root / ".lock").touch()
    (root / ".incomplete-abc").mkdir()
    (root / ".trash-abc" / "x").mkdir(parents=True)
    (root / "blobs" / sha256(b"orphan")).write_bytes(b"orphan")
    (acquired.folder.parent / f"{'0' * 40}.json").write_text("{}")
    for name in (".tmp-old", ".tmp-new"):
        (root / name).touch()
    os.utime(root / ".tmp-old", (0, 0))
    assert len(repair(weights_cache)) == 5
    assert sorted(path.name for path in root.glob(".*")) == [".lock", ".tmp-new"]
    assert set(_links(root)) == {file.sha256 for file in acquired.files}
    assert repair(weights_cache) == ()


def test_a_download_under_way_is_left_alone(hub: HubServer, weights_cache: WeightsCache) -> None:
    hub.publish(REPO, model_files(num_bytes=50_000))
    hub.fail(SHARD, Fault(bytes_per_s=50_000))
    command = [sys.executable, "-c", _DOWNLOAD, str(weights_cache.root), hub.endpoint, REPO]
    with subprocess.Popen(command) as process:
        while process.poll() is None:
            repair(weights_cache, keep_unfinished_s=-10)
            time.sleep(0.05)
    assert process.returncode == 0
    assert len(hub.requests(SHARD)) == 1


@pytest.mark.slow
def test_killed_at_any_moment_the_next_start_is_whole(hub: HubServer, weights_cache: WeightsCache) -> None:
    files = model_files(num_bytes=2_000_000)
    hub.publish(REPO, files)
    hub.publish("other/copy", {**files, "config.json": b"{}"})
    hub.publish("acme/tiny-GGUF", {"tiny.gguf": GGUF})
    sources = [REPO, "acme/tiny-GGUF", "other/copy"]
    command = [sys.executable, "-c", _DOWNLOAD, str(weights_cache.root), hub.endpoint, *sources]
    dice = random.Random(0)
    for _ in range(12):
        hub.fail(SHARD, Fault(bytes_per_s=20_000_000))
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "begun\n"
            time.sleep(dice.uniform(0.0, 0.5))
            process.send_signal(signal.SIGKILL)
            process.wait(10)
        repair(weights_cache)
        assert verify(weights_cache, ignore) == ()
        assert not [path for path in weights_cache.root.glob(".*") if path.name[:5] in (".inco", ".tras")]
        for entry in weights_cache.entries():
            assert entry.kind is EntryKind.UNFINISHED or not entry.is_in_use
            if entry.kind is EntryKind.DOWNLOAD and entry.name == REPO:
                assert contents(entry.path) == {path: files[path] for path in WANTED}
        if dice.random() < 0.4:
            for entry in weights_cache.entries():
                weights_cache.remove(entry.id)
            assert _links(weights_cache.root) == {}
    for source in sources:
        _get(weights_cache, hub, source)
    assert verify(weights_cache, ignore) == ()
    assert all(num_links > 1 for num_links in _links(weights_cache.root).values())


def test_beginnings_of_files_go_when_their_time_is_over(hub: HubServer, tmp_path: Path) -> None:
    hub.publish(REPO, model_files())
    clock = FakeClock(0.0, time.time())
    cache = WeightsCache(tmp_path, metadata_ttl_s=600.0, clock=clock)
    read_preview(HubId(REPO), ("config.json",), cache, hub.door(), ignore)
    (kept,) = tmp_path.rglob("*.heads")
    for passed_s, is_there in ((590.0, True), (20.0, False)):
        clock.advance(passed_s)
        assert repair(cache) == ()
        assert kept.exists() == is_there
