from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.weights.acquire import acquire
from engine.weights.cache import WeightsCache
from engine.weights.cache_jobs import CacheJobs
from tests.engine.weights.hub_models import FAST, GGUF, REPO, WANTED, contents, convert, ignore, model_files
from tests.engine.weights.hub_server import HubServer
from tests.fakes import FakeClock, wait_until

SHARD = "model-00001-of-00002.safetensors"


@pytest.fixture
def jobs(hub: HubServer, weights_cache: WeightsCache) -> Iterator[CacheJobs]:
    made = CacheJobs(weights_cache, FakeClock(), hub.door)
    yield made
    made.close()


def _fetch(cache: WeightsCache, hub: HubServer, source: str = REPO) -> Path:
    acquired = acquire(source, cache, convert, ignore, hub=hub.door(), retry=FAST)
    acquired.lease.close()
    return acquired.folder


def _damage(file: Path) -> None:
    """Change the last byte where it lies."""
    file.chmod(0o644)
    with file.open("r+b") as stream:
        stream.seek(-1, os.SEEK_END)
        last = stream.read(1)
        stream.seek(-1, os.SEEK_END)
        stream.write(bytes([last[0] ^ 1]))


def _verify(jobs: CacheJobs) -> None:
    assert jobs.verify()
    jobs.wait(30)
    assert jobs.progress() is None


def test_a_whole_cache(hub: HubServer, weights_cache: WeightsCache, jobs: CacheJobs) -> None:
    assert jobs.report() is None
    hub.publish(REPO, model_files())
    folder = _fetch(weights_cache, hub)
    _verify(jobs)
    report = jobs.report()
    assert report is not None
    assert (report.damaged, report.num_models, jobs.error, jobs.is_cancelled) == ((), 1, None, False)
    assert report.size_bytes == sum(file.stat().st_size for file in folder.iterdir())
    assert report.ended_at_s == FakeClock().wall()


def test_a_damaged_file_is_named_and_fetched_again(
    hub: HubServer, weights_cache: WeightsCache, jobs: CacheJobs
) -> None:
    files = model_files()
    hub.publish(REPO, files)
    folder = _fetch(weights_cache, hub)
    _damage(folder / SHARD)
    _verify(jobs)
    (damaged,) = jobs.report().damaged  # type: ignore[union-attr]
    assert (damaged.damage.path, damaged.damage.folder, damaged.can_fetch) == (SHARD, folder, True)
    hub.seen.clear()
    assert jobs.mend(damaged)
    jobs.wait(30)
    assert jobs.error is None
    assert contents(folder) == {path: files[path] for path in WANTED}
    assert [seen.path.rpartition("/")[2] for seen in hub.seen if seen.where == "storage"] == [SHARD]
    assert jobs.report().damaged == ()  # type: ignore[union-attr]
    _verify(jobs)
    assert jobs.report().damaged == ()  # type: ignore[union-attr]


def test_two_files_of_one_model_are_mended_one_by_one(
    hub: HubServer, weights_cache: WeightsCache, jobs: CacheJobs
) -> None:
    hub.publish(REPO, model_files())
    folder = _fetch(weights_cache, hub)
    for path in (SHARD, "config.json"):
        _damage(folder / path)
    _verify(jobs)
    for left in (1, 0):
        assert jobs.mend(jobs.report().damaged[0])  # type: ignore[union-attr]
        jobs.wait(30)
        assert jobs.error is None
        assert len(jobs.report().damaged) == left  # type: ignore[union-attr]
    _verify(jobs)
    assert jobs.report().damaged == ()  # type: ignore[union-attr]


def test_an_unpacked_model_is_removed(hub: HubServer, weights_cache: WeightsCache, jobs: CacheJobs) -> None:
    source = weights_cache.root.parent / "tiny.gguf"
    source.parent.mkdir(parents=True)
    source.write_bytes(GGUF)
    folder = _fetch(weights_cache, hub, str(source))
    for file in folder.iterdir():
        _damage(file)
    _verify(jobs)
    damaged = jobs.report().damaged  # type: ignore[union-attr]
    assert {item.can_fetch for item in damaged} == {False}
    assert jobs.mend(damaged[0])
    jobs.wait(30)
    assert jobs.report().damaged == ()  # type: ignore[union-attr]
    assert weights_cache.entries() == ()


def test_a_model_without_digests_is_named(hub: HubServer, weights_cache: WeightsCache, jobs: CacheJobs) -> None:
    folder = weights_cache.root / ("ab" * 32)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    _verify(jobs)
    report = jobs.report()
    assert report is not None
    assert (report.damaged, report.num_models, report.size_bytes) == ((), 1, 0)
    assert report.without_digests == ("abababababab abababababab",)


def test_what_is_in_use_is_not_mended_and_says_so(hub: HubServer, weights_cache: WeightsCache, jobs: CacheJobs) -> None:
    hub.publish(REPO, model_files())
    _damage(_fetch(weights_cache, hub) / SHARD)
    _verify(jobs)
    held = acquire(REPO, weights_cache, convert, ignore, hub=hub.door(), retry=FAST)
    with held.lease:
        assert jobs.mend(jobs.report().damaged[0])  # type: ignore[union-attr]
        jobs.wait(30)
        assert "is in use: unload the model" in (jobs.error or "")
        assert len(jobs.report().damaged) == 1  # type: ignore[union-attr]


def test_one_at_a_time_followed_and_cancelled(
    hub: HubServer, weights_cache: WeightsCache, jobs: CacheJobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    going = threading.Event()

    def read_slowly(_cache: WeightsCache, on_progress: object) -> tuple[()]:
        assert callable(on_progress)
        on_progress("verifying", 0.5)
        going.wait(30)
        on_progress("verifying", 0.75)
        return ()

    monkeypatch.setattr("engine.weights.cache_jobs.verify", read_slowly)
    assert jobs.verify()
    wait_until(lambda: (progress := jobs.progress()) is not None and progress.fraction == 0.5)
    assert not jobs.verify()
    jobs.cancel()
    going.set()
    jobs.wait(30)
    assert (jobs.progress(), jobs.report(), jobs.error, jobs.is_cancelled) == (None, None, None, True)
