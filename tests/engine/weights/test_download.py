from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from engine.errors import WeightsError
from engine.weights.acquire import Acquired, acquire
from engine.weights.cache import WeightsCache
from engine.weights.download import Progress, RetryPolicy
from tests.engine.weights.hub_models import FAST, REPO, contents, convert, ignore, model_files
from tests.engine.weights.hub_server import Fault, HubServer, sha256

SHARD = "model-00002-of-00002.safetensors"
OTHER = "model-00001-of-00002.safetensors"
BYTES = 300_000


@pytest.fixture
def files(hub: HubServer) -> dict[str, bytes]:
    """A published model whose shards are 300 kB."""
    files = model_files(num_bytes=BYTES)
    hub.publish(REPO, files)
    return files


def _get(cache: WeightsCache, hub: HubServer, on_progress: Progress = ignore, retry: RetryPolicy = FAST) -> Acquired:
    return acquire(REPO, cache, convert, on_progress, hub=hub.door(read_timeout_s=1.0), retry=retry)


def _is_whole(acquired: Acquired, files: dict[str, bytes]) -> bool:
    return all(files[path] == content for path, content in contents(acquired.folder).items())


def test_a_dropped_connection_is_taken_up_again(
    hub: HubServer, weights_cache: WeightsCache, files: dict[str, bytes]
) -> None:
    hub.fail(SHARD, Fault(drop_after=100_000), Fault(drop_after=50_000))
    assert _is_whole(_get(weights_cache, hub), files)
    assert [seen.headers.get("Range") for seen in hub.requests(SHARD)] == [None, "bytes=100000-", "bytes=150000-"]
    assert all("If-Range" in seen.headers for seen in hub.requests(SHARD)[1:])
    assert not list((weights_cache.root / "partial").iterdir())


def test_what_a_stopped_download_left_is_used(
    hub: HubServer, weights_cache: WeightsCache, files: dict[str, bytes]
) -> None:
    hub.fail(SHARD, Fault(drop_after=120_000), Fault(status=404))
    with pytest.raises(WeightsError, match="404"):
        _get(weights_cache, hub)
    hub.seen.clear()
    assert _is_whole(_get(WeightsCache(weights_cache.root), hub), files)
    assert [seen.headers.get("Range") for seen in hub.requests(SHARD)] == ["bytes=120000-"]
    assert not hub.requests("config.json"), "what came whole is not fetched again"


def test_a_host_that_ignores_ranges(hub: HubServer, weights_cache: WeightsCache, files: dict[str, bytes]) -> None:
    hub.fail(SHARD, Fault(drop_after=100_000), Fault(is_range_ignored=True))
    assert _is_whole(_get(weights_cache, hub), files)


def test_a_changed_file_is_not_glued_together(
    hub: HubServer, weights_cache: WeightsCache, files: dict[str, bytes]
) -> None:
    other = bytes(len(files[SHARD]))
    hub.fail(SHARD, Fault(drop_after=100_000, content=other))
    assert _is_whole(_get(weights_cache, hub), files)
    assert len(hub.requests(SHARD)) == 2, "If-Range gave the whole of the right one"


def test_a_host_that_ignores_if_range_is_found_out_by_its_etag(
    hub: HubServer, weights_cache: WeightsCache, files: dict[str, bytes]
) -> None:
    hub.fail(SHARD, Fault(drop_after=100_000, content=bytes(len(files[SHARD]))), Fault(is_if_range_ignored=True))
    assert _is_whole(_get(weights_cache, hub), files)
    assert [seen.headers.get("Range") for seen in hub.requests(SHARD)] == [None, "bytes=100000-", None]


def test_a_wrong_byte_has_that_file_fetched_again_and_no_other(
    hub: HubServer, weights_cache: WeightsCache, files: dict[str, bytes]
) -> None:
    hub.fail(SHARD, Fault(flip_byte=200_000))
    stages: list[str] = []
    assert _is_whole(_get(weights_cache, hub, lambda stage, _: stages.append(stage)), files)
    assert len(hub.requests(SHARD)) == 2
    assert len(hub.requests(OTHER)) == len(hub.requests("config.json")) == 1


@pytest.mark.parametrize(("path", "digest"), [(SHARD, "SHA-256"), ("tokenizer.json", "git SHA-1")])
def test_wrong_twice_is_an_error_that_names_the_file(
    hub: HubServer, weights_cache: WeightsCache, files: dict[str, bytes], path: str, digest: str
) -> None:
    hub.fail(path, Fault(flip_byte=3), Fault(flip_byte=3))
    with pytest.raises(WeightsError, match=rf"{path} of acme/tiny came damaged twice: its {digest} is not the one"):
        _get(weights_cache, hub)
    assert not any(entry.kind == "download" for entry in weights_cache.entries())
    hub.seen.clear()
    assert _is_whole(_get(weights_cache, hub), files)
    assert len(hub.requests(path)) == 1


def test_a_partial_file_that_rotted_is_found_out(
    hub: HubServer, weights_cache: WeightsCache, files: dict[str, bytes]
) -> None:
    hub.fail(SHARD, Fault(drop_after=120_000), Fault(status=404))
    with pytest.raises(WeightsError):
        _get(weights_cache, hub)
    partial = weights_cache.root / "partial" / sha256(files[SHARD])
    partial.write_bytes(bytes(120_000))
    assert _is_whole(_get(weights_cache, hub), files)


@pytest.mark.parametrize(
    "fault",
    [Fault(status=503), Fault(status=500), Fault(status=429, headers={"Retry-After": "1"}), Fault(status=408)],
)
def test_a_hub_in_trouble_is_asked_again(
    hub: HubServer, weights_cache: WeightsCache, files: dict[str, bytes], fault: Fault
) -> None:
    hub.fail(SHARD, fault, fault)
    assert _is_whole(_get(weights_cache, hub), files)
    assert len(hub.requests(SHARD)) == 3


def test_trouble_without_end_is_an_error(hub: HubServer, weights_cache: WeightsCache, files: dict[str, bytes]) -> None:
    hub.fail(SHARD, *[Fault(status=503)] * 20)
    with pytest.raises(WeightsError, match=r"is in trouble itself \(503\): try again later"):
        _get(weights_cache, hub)
    assert len(hub.requests(SHARD)) == 1 + FAST.max_failures


def test_a_drip_without_end_is_an_error(hub: HubServer, weights_cache: WeightsCache, files: dict[str, bytes]) -> None:
    hub.fail(SHARD, *[Fault(drop_after=1)] * 40)
    with pytest.raises(WeightsError, match=r"the connection to http://127\.0\.0\.1:\d+ broke"):
        _get(weights_cache, hub, retry=RetryPolicy(max_attempts=8, pause_s=0.001))
    assert len(hub.requests(SHARD)) == 8


def test_a_silent_host_is_left_and_asked_again(
    hub: HubServer, weights_cache: WeightsCache, files: dict[str, bytes]
) -> None:
    hub.fail(SHARD, Fault(hang_s=1.6))
    assert _is_whole(_get(weights_cache, hub), files)
    assert len(hub.requests(SHARD)) == 2


def test_more_bytes_than_listed_are_not_written(
    hub: HubServer, weights_cache: WeightsCache, files: dict[str, bytes]
) -> None:
    hub.fail(SHARD, Fault(content=files[SHARD] + bytes(10)))
    with pytest.raises(WeightsError, match=r"has 300,\d+ bytes at the hub, which lists it with 300,\d+"):
        _get(weights_cache, hub)


def test_progress_tells_bytes_speed_and_what_is_left(
    hub: HubServer, weights_cache: WeightsCache, files: dict[str, bytes]
) -> None:
    hub.fail(SHARD, Fault(bytes_per_s=200_000))
    seen: list[tuple[str, float | None]] = []
    _get(weights_cache, hub, lambda *call: seen.append(call))
    told = [(stage, fraction) for stage, fraction in seen if "/s, " in stage]
    assert told
    assert all(" of 600 kB, " in stage and stage.endswith(" s left") for stage, _ in told)
    fractions = [fraction for _, fraction in seen if fraction is not None]
    assert fractions == sorted(fractions)
    assert len(seen) >= 8, "ten times a second"


@pytest.mark.parametrize("fault", [Fault(bytes_per_s=100_000), Fault(hang_s=4)])
def test_cancelled_at_once_and_resumed(
    hub: HubServer, weights_cache: WeightsCache, files: dict[str, bytes], fault: Fault
) -> None:
    hub.fail(SHARD, fault)
    cancelled_s = time.monotonic() + 0.8

    class CancelledError(Exception):
        pass

    def cancel(_stage: str, _fraction: float | None) -> None:
        if time.monotonic() > cancelled_s:
            raise CancelledError

    with pytest.raises(CancelledError):
        acquire(REPO, weights_cache, convert, cancel, hub=hub.door(read_timeout_s=30.0), retry=FAST)
    assert time.monotonic() < cancelled_s + 3.5
    hub.seen.clear()
    assert _is_whole(_get(weights_cache, hub), files)
    if fault.bytes_per_s:
        assert hub.requests(SHARD)[0].headers["Range"].startswith("bytes=")
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("download-")]


def test_a_disk_that_is_too_small_is_told_before_anything_is_fetched(
    hub: HubServer, small_disk: Path, files: dict[str, bytes]
) -> None:
    with pytest.raises(WeightsError, match=r"needs 600 kB and .* has \d+ kB free: 5\d\d kB are missing; free space"):
        _get(WeightsCache(small_disk / "weights"), hub)
    assert not hub.requests(SHARD)


def test_a_mirror_that_gives_no_digests(hub: HubServer, weights_cache: WeightsCache, files: dict[str, bytes]) -> None:
    hub.has_digests = False
    hub.fail(SHARD, Fault(drop_after=100_000))
    acquired = _get(weights_cache, hub)
    assert _is_whole(acquired, files)
    assert {file.path: file.sha256 for file in acquired.files}[SHARD] == sha256(files[SHARD])
    assert hub.requests(SHARD)[1].headers["Range"] == "bytes=100000-"


def test_an_empty_file(hub: HubServer, weights_cache: WeightsCache) -> None:
    hub.publish("acme/empty", {**model_files(), "merges.txt": b""})
    acquired = acquire("acme/empty", weights_cache, convert, ignore, hub=hub.door(), retry=FAST)
    assert (acquired.folder / "merges.txt").read_bytes() == b""


def test_two_files_at_once_at_most(hub: HubServer, weights_cache: WeightsCache, files: dict[str, bytes]) -> None:
    for path in (SHARD, OTHER):
        hub.fail(path, Fault(bytes_per_s=600_000))
    most = 0

    def watch(_stage: str, _fraction: float | None) -> None:
        nonlocal most
        most = max(most, sum(thread.name.startswith("download-") for thread in threading.enumerate()))

    _get(weights_cache, hub, watch)
    assert most == 2
