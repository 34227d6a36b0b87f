from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.errors import WeightsError
from engine.weights.acquire import Acquired, acquire, preload
from engine.weights.cache import WeightsCache
from engine.weights.download import WAITING, Progress
from engine.weights.hub import Hub
from engine.weights.lease import Lease
from engine.weights.store import plain_weights
from engine.weights.upkeep import verify
from tests.engine.weights.hub_models import FAST, GGUF, REPO, WANTED, contents, convert, ignore, model_files
from tests.engine.weights.hub_server import Fault, HubServer, sha256

_ACQUIRE = """
import sys
from pathlib import Path
from engine.weights.acquire import acquire
from engine.weights.cache import WeightsCache
from engine.weights.store import plain_weights
from engine.weights.hub import Hub
from tests.engine.weights.hub_models import convert

seen = []
acquired = acquire(sys.argv[1], WeightsCache(Path(sys.argv[2])), convert, lambda stage, _: seen.append(stage),
                   hub=Hub(sys.argv[3]))
print(acquired.folder, "waiting for another download" in seen)
"""


class SteppedClock:
    """Wall time that a test moves."""

    def __init__(self) -> None:
        self.now_s = 1_000_000.0

    def monotonic(self) -> float:
        return self.now_s

    def wall(self) -> float:
        return self.now_s


@pytest.fixture
def dead_end() -> Hub:
    """A hub that refuses connections."""
    return Hub("http://127.0.0.1:9")


def _get(source: str, cache: WeightsCache, hub: HubServer | Hub, on_progress: Progress = ignore) -> Acquired:
    return acquire(source, cache, convert, on_progress, hub=hub if isinstance(hub, Hub) else hub.door(), retry=FAST)


def test_only_what_is_needed_is_fetched(hub: HubServer, weights_cache: WeightsCache) -> None:
    files = model_files()
    commit = hub.publish(REPO, files)
    acquired = _get(REPO, weights_cache, hub)
    assert contents(acquired.folder) == {path: files[path] for path in WANTED}
    assert (acquired.name, acquired.revision) == ("tiny", commit[:12])
    assert {file.path: file.sha256 for file in acquired.files} == {path: sha256(files[path]) for path in WANTED}
    assert {file.path: file.size_bytes for file in acquired.files} == {path: len(files[path]) for path in WANTED}
    assert acquired.lease.is_held


def test_the_second_time_nothing_is_asked(hub: HubServer, weights_cache: WeightsCache) -> None:
    hub.publish(REPO, model_files())
    first = _get(REPO, weights_cache, hub)
    hub.seen.clear()
    second = _get(REPO, WeightsCache(weights_cache.root), hub)
    assert (second.folder, second.files) == (first.folder, first.files)
    assert hub.seen == []


def test_a_branch_is_asked_for_again_after_its_time(hub: HubServer, tmp_path: Path) -> None:
    clock = SteppedClock()
    cache = WeightsCache(tmp_path / "w", metadata_ttl_s=600, clock=clock)
    old = hub.publish(REPO, model_files())
    assert _get(REPO, cache, hub).revision == old[:12]
    new = hub.publish(REPO, {**model_files(), "config.json": b'{"model_type": "llama", "new": 1}'})
    clock.now_s += 599
    assert _get(REPO, cache, hub).revision == old[:12]
    clock.now_s += 2
    hub.seen.clear()
    assert _get(REPO, cache, hub).revision == new[:12]
    assert not hub.requests("model-00001-of-00002.safetensors"), "the weights did not change, and are shared"
    assert _get(f"{REPO}@{old}", cache, hub).revision == old[:12]


def test_a_clock_put_back_does_not_keep_a_branch_for_ever(hub: HubServer, tmp_path: Path) -> None:
    clock = SteppedClock()
    cache = WeightsCache(tmp_path / "w", clock=clock)
    hub.publish(REPO, model_files())
    _get(REPO, cache, hub)
    clock.now_s -= 1_000
    _get(REPO, cache, hub)
    assert len(hub.requests("api")) == 2


def test_a_commit_is_for_ever(hub: HubServer, tmp_path: Path, dead_end: Hub) -> None:
    clock = SteppedClock()
    cache = WeightsCache(tmp_path / "w", clock=clock)
    commit = hub.publish(REPO, model_files())
    _get(f"{REPO}@{commit}", cache, hub)
    clock.now_s += 10**9
    assert _get(f"{REPO}@{commit}", cache, dead_end).revision == commit[:12]


def test_a_tag(hub: HubServer, weights_cache: WeightsCache) -> None:
    hub.publish(REPO, model_files())
    tagged = hub.publish(REPO, model_files(seed=5), branch="v1.0")
    assert _get(f"{REPO}@v1.0", weights_cache, hub).revision == tagged[:12]


def test_models_share_their_files(hub: HubServer, weights_cache: WeightsCache) -> None:
    hub.publish(REPO, model_files())
    hub.publish("other/copy", {**model_files(), "config.json": b'{"copy": true}'})
    first = _get(REPO, weights_cache, hub)
    hub.seen.clear()
    second = _get("other/copy", weights_cache, hub)
    shard = "model-00001-of-00002.safetensors"
    assert (first.folder / shard).samefile(second.folder / shard)
    assert not hub.requests(shard)


@pytest.mark.parametrize("offline_by", [None, "HF_HUB_OFFLINE=1"])
def test_offline_what_is_not_cached_is_one_error_at_once(weights_cache: WeightsCache, offline_by: str | None) -> None:
    began_s = time.monotonic()
    words = "switched off by HF_HUB_OFFLINE=1: unset it" if offline_by else "Connection refused.*HF_ENDPOINT"
    with pytest.raises(WeightsError, match=rf"acme/tiny@main is not in the weights cache.*{words}.*path of a folder"):
        _get(REPO, weights_cache, Hub("http://127.0.0.1:9", offline_by=offline_by))
    assert time.monotonic() - began_s < 10


def test_a_host_that_swallows_connections_is_given_up_soon(weights_cache: WeightsCache) -> None:
    began_s, calls = time.monotonic(), []
    hub = Hub("http://192.0.2.1:81", connect_timeout_s=0.5)
    with pytest.raises(WeightsError, match="cannot be reached"):
        _get(REPO, weights_cache, hub, lambda *call: calls.append(call))
    assert time.monotonic() - began_s < 10


@pytest.mark.parametrize("offline_by", [None, "TRANSFORMERS_OFFLINE=1"])
def test_offline_what_is_cached_loads(hub: HubServer, tmp_path: Path, offline_by: str | None) -> None:
    clock, seen = SteppedClock(), []
    cache = WeightsCache(tmp_path / "w", clock=clock)
    commit = hub.publish(REPO, model_files())
    _get(REPO, cache, hub)
    clock.now_s += 10_000
    offline = Hub("http://127.0.0.1:9", offline_by=offline_by)
    acquired = _get(REPO, cache, offline, lambda stage, _: seen.append(stage))
    assert acquired.revision == commit[:12]
    assert f"the hub gives no answer: using commit {commit[:12]}, which is here" in seen


def test_offline_with_half_a_model_says_so_at_once(hub: HubServer, weights_cache: WeightsCache, dead_end: Hub) -> None:
    commit = hub.publish(REPO, model_files())
    hub.fail("model-00002-of-00002.safetensors", Fault(status=404))
    with pytest.raises(WeightsError, match=r"no such model: model-00002-of-00002\.safetensors of acme/tiny"):
        _get(REPO, weights_cache, hub)
    began_s = time.monotonic()
    for source in (REPO, f"{REPO}@{commit}"):
        with pytest.raises(WeightsError, match=r"is not in the weights cache, and .* cannot be reached"):
            _get(source, weights_cache, dead_end)
    assert time.monotonic() - began_s < 10


def test_a_refusal_is_no_reason_to_use_what_is_old(hub: HubServer, tmp_path: Path) -> None:
    clock = SteppedClock()
    cache = WeightsCache(tmp_path / "w", clock=clock)
    commit = hub.publish(REPO, model_files())
    _get(REPO, cache, hub)
    clock.now_s += 10_000
    hub.fail("api", Fault(status=403))
    with pytest.raises(WeightsError, match=rf"is gated \(403\).*that was fetched before loads as acme/tiny@{commit}"):
        _get(REPO, cache, hub)
    assert _get(f"{REPO}@{commit}", cache, hub).revision == commit[:12]


def test_a_gguf_file_is_fetched_and_unpacked_once(hub: HubServer, weights_cache: WeightsCache) -> None:
    commit = hub.publish("acme/tiny-GGUF", {"README.md": b"", "tiny.Q4_0.gguf": GGUF, "config.json": b"{}"})
    acquired = _get("acme/tiny-GGUF", weights_cache, hub)
    assert acquired.folder == weights_cache.root / sha256(GGUF)
    assert acquired.revision == commit[:12]
    assert (acquired.folder / "model.safetensors").read_bytes() == GGUF[4:]
    assert [file.sha256 for file in acquired.files] == [sha256(b"{}"), sha256(GGUF[4:])]
    hub.seen.clear()
    assert _get("acme/tiny-GGUF", weights_cache, hub).folder == acquired.folder
    assert hub.seen == []


def test_unpacked_weights_stand_for_their_gguf_file(
    hub: HubServer, weights_cache: WeightsCache, tmp_path: Path
) -> None:
    (tmp_path / "mine.gguf").write_bytes(GGUF)
    local = _get(str(tmp_path / "mine.gguf"), weights_cache, hub)
    assert local.revision == sha256(GGUF)[:12]
    hub.publish("acme/tiny-GGUF", {"tiny.gguf": GGUF})
    assert _get("acme/tiny-GGUF", weights_cache, hub).folder == local.folder
    assert not hub.requests("tiny.gguf")


def test_one_gguf_file_of_several(hub: HubServer, weights_cache: WeightsCache) -> None:
    hub.publish("acme/tiny-GGUF", {"tiny.Q4_0.gguf": GGUF, "tiny.Q8_0.gguf": GGUF + b"8"})
    with pytest.raises(WeightsError, match=r"holds 2 \.gguf files.*as in acme/tiny-GGUF:tiny\.Q4_0\.gguf"):
        _get("acme/tiny-GGUF", weights_cache, hub)
    acquired = _get("acme/tiny-GGUF:tiny.Q8_0.gguf", weights_cache, hub)
    assert acquired.name == "tiny.Q8_0"
    assert acquired.folder.name == sha256(GGUF + b"8")
    assert not hub.requests("tiny.Q4_0.gguf")


def test_what_calls_itself_gguf_and_is_not(hub: HubServer, weights_cache: WeightsCache) -> None:
    hub.publish("acme/tiny-GGUF", {"tiny.gguf": b"<!DOCTYPE html>"})
    with pytest.raises(WeightsError, match=r"tiny\.gguf.*GGUF"):
        _get("acme/tiny-GGUF", weights_cache, hub)


def test_a_local_folder_is_left_where_it_is(tmp_path: Path, weights_cache: WeightsCache, dead_end: Hub) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(bytes(10))
    acquired = _get(str(folder), weights_cache, dead_end)
    assert acquired.folder == folder
    assert [(file.path, file.size_bytes, file.sha256) for file in acquired.files] == [
        ("config.json", 2, None),
        ("model.safetensors", 10, None),
    ]
    assert not acquired.lease.is_held
    (folder / "model.safetensors").write_bytes(bytes(11))
    assert _get(str(folder), weights_cache, dead_end).revision != acquired.revision


def test_a_path_that_exists_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hub: HubServer, weights_cache: WeightsCache
) -> None:
    hub.publish(REPO, model_files())
    (tmp_path / "acme" / "tiny").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(WeightsError, match=r"is not a model.*a path that exists wins over the hub's 'acme/tiny'"):
        _get(REPO, weights_cache, hub)
    (tmp_path / "acme" / "tiny" / "config.json").write_text("{}")
    assert _get(REPO, weights_cache, hub).folder == Path("acme/tiny")


def test_threads_fetch_one_model_once(hub: HubServer, weights_cache: WeightsCache) -> None:
    files = model_files(num_bytes=40_000)
    hub.publish(REPO, files)
    hub.fail("model-00001-of-00002.safetensors", Fault(bytes_per_s=80_000))
    results: list[Acquired] = []
    stages: list[str] = []
    threads = [
        threading.Thread(
            target=lambda: results.append(
                _get(REPO, WeightsCache(weights_cache.root), hub, lambda stage, _: stages.append(stage))
            )
        )
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len({result.folder for result in results}) == 1
    assert len(results) == 4
    assert len(hub.requests("model-00001-of-00002.safetensors")) == 1
    assert WAITING in stages


@pytest.fixture
def two_processes(hub: HubServer, weights_cache: WeightsCache) -> Iterator[list[subprocess.Popen[str]]]:
    command = [sys.executable, "-c", _ACQUIRE, REPO, str(weights_cache.root), hub.endpoint]
    hub.publish(REPO, model_files(num_bytes=40_000))
    hub.fail("model-00001-of-00002.safetensors", Fault(bytes_per_s=20_000))
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    yield processes
    for process in processes:
        process.kill()
        process.wait(10)


def test_processes_fetch_one_model_once(hub: HubServer, two_processes: list[subprocess.Popen[str]]) -> None:
    answers = [process.communicate(timeout=60)[0].split() for process in two_processes]
    assert answers[0][0] == answers[1][0]
    assert sorted(answer[1] for answer in answers) == ["False", "True"]
    assert len(hub.requests("model-00001-of-00002.safetensors")) == 1


def test_a_file_of_two_models_that_are_fetched_at_once_comes_once(hub: HubServer, weights_cache: WeightsCache) -> None:
    files = model_files(num_bytes=40_000)
    hub.publish(REPO, files)
    hub.publish("other/copy", {**files, "config.json": b"{}"})
    hub.fail("model-00001-of-00002.safetensors", Fault(bytes_per_s=80_000))
    results: list[Acquired] = []
    threads = [
        threading.Thread(target=lambda repo=repo: results.append(_get(repo, weights_cache, hub)))
        for repo in (REPO, "other/copy")
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(results) == 2
    assert len(hub.requests("model-00001-of-00002.safetensors")) == 1


def test_preload_goes_on_after_one_that_cannot_be_had(hub: HubServer, weights_cache: WeightsCache) -> None:
    commit = hub.publish(REPO, model_files())
    stages: list[str] = []
    sources = ["acme/none", REPO]
    done = preload(sources, weights_cache, convert, lambda stage, _: stages.append(stage), hub=hub.door())
    assert [result.source for result in done] == sources
    assert "has no such model: acme/none@main (404)" in (done[0].reason or "")
    assert (done[1].revision, done[1].reason) == (commit[:12], None)
    assert done[1].size_bytes > 8000
    assert any(stage.startswith(f"{REPO}: downloading") for stage in stages)
    assert not any(entry.is_in_use for entry in weights_cache.entries())


def test_no_lease_no_close() -> None:
    lease = Lease()
    lease.close()
    assert not lease.is_held


def test_what_was_fetched_is_loaded(hub: HubServer, weights_cache: WeightsCache, tiny_folder: Path) -> None:
    from engine.models.loader import load_model
    from engine.models.spec import ModelSpec

    hub.publish("acme/llama", contents(tiny_folder))
    acquired = _get("acme/llama", weights_cache, hub)
    spec = ModelSpec(str(acquired.folder), device="cpu", dtype="float32")
    loaded = load_model(spec, plain_weights(weights_cache.root), ignore)
    assert loaded.info.weights_bytes > 0
    assert verify(weights_cache, ignore) == ()
