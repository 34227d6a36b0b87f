from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.clock import SystemClock
from engine.errors import WeightsError
from engine.weights.cache import WeightsCache
from engine.weights.files import OpenFile
from engine.weights.heads import FIRST_BYTES, Head, HeadReader
from engine.weights.hub import Body
from engine.weights.repository import RemoteFile, Repository
from tests.engine.weights.hub_models import REPO, ignore
from tests.engine.weights.hub_server import Fault, HubServer

NAME = "model.safetensors"
MIB = 1 << 20


class _Later(SystemClock):
    """Ahead of the machine's clock by `passed_s`."""

    passed_s = 0.0

    def wall(self) -> float:
        return super().wall() + self.passed_s


@dataclass(frozen=True)
class _Session:
    """Answers with a file's bytes, in pieces; all of them where it ignores ranges."""

    content: bytes
    is_range_ignored: bool

    @contextmanager
    def fetch(self, _repository: Repository, _path: str, start_byte: int, stop_byte: int) -> Iterator[Body]:
        start, stop = (0, None) if self.is_range_ignored else (start_byte, stop_byte)
        sent = self.content[start:stop]
        pieces = (sent[at : at + 50_000] for at in range(0, len(sent), 50_000))
        yield Body(start, len(self.content), None, pieces)


def _content(num_bytes: int) -> bytes:
    return bytes(index * 7 % 251 for index in range(num_bytes))


def _publish(hub: HubServer, **files: bytes) -> Repository:
    hub.publish(REPO, {path.replace("_", "."): content for path, content in files.items()})
    return hub.door().describe(REPO, "main", lambda: None)


def _reader(hub: HubServer, repository: Repository, cache: WeightsCache) -> HeadReader:
    return HeadReader(repository, cache, hub.door, ignore)


def _read_three(file: OpenFile) -> bytes:
    return file.stream.read(3)


def _ranges(hub: HubServer, path: str = NAME) -> list[str | None]:
    return [seen.headers.get("Range") for seen in hub.requests(path)]


@given(sizes=st.lists(st.integers(0, 300_000), max_size=6), num_bytes=st.integers(1, 700_000), is_ignored=st.booleans())
def test_what_is_read_is_the_beginning_of_the_file(sizes: list[int], num_bytes: int, is_ignored: bool) -> None:
    content = _content(num_bytes)
    file = RemoteFile(NAME, num_bytes, None, None)
    head = Head(_Session(content, is_ignored), Repository(REPO, "0" * 40, (file,)), file)  # type: ignore[arg-type]
    stream = head.open().stream
    read = [stream.read(size) for size in sizes]
    assert b"".join(read) == content[: sum(sizes)]
    assert content.startswith(head.content)
    assert len(head.content) <= max(FIRST_BYTES, 2 * sum(sizes), sum(sizes) + MIB)


def test_a_few_bytes_take_one_range(hub: HubServer, weights_cache: WeightsCache) -> None:
    repository = _publish(hub, model_safetensors=_content(MIB))
    found = _reader(hub, repository, weights_cache).read(repository.files, _read_three)
    assert found == {NAME: _content(3)}
    assert _ranges(hub) == [f"bytes=0-{FIRST_BYTES - 1}"]


def test_a_server_that_ignores_the_range_is_not_read_to_the_end(hub: HubServer, weights_cache: WeightsCache) -> None:
    content = _content(4 * MIB)
    repository = _publish(hub, model_safetensors=content)
    hub.fail(NAME, Fault(is_range_ignored=True, bytes_per_s=4 * MIB))
    assert _reader(hub, repository, weights_cache).read(repository.files, _read_three) == {NAME: content[:3]}
    assert hub.sent_bytes < len(content) // 2


def test_what_was_read_is_kept_as_long_as_a_branch_is_believed(hub: HubServer, tmp_path: Path) -> None:
    clock = _Later()
    cache = WeightsCache(tmp_path, metadata_ttl_s=600.0, clock=clock)
    repository = _publish(hub, model_safetensors=_content(1000))
    for passed_s, num_requests in ((0.0, 1), (590.0, 1), (610.0, 2)):
        clock.passed_s = passed_s
        assert _reader(hub, repository, cache).read(repository.files, _read_three) == {NAME: _content(3)}
        assert len(hub.requests(NAME)) == num_requests
    assert list(tmp_path.rglob("*.heads")) == []  # those of a moment ago are of long ago by this clock


def test_nothing_is_asked_for_what_is_kept(hub: HubServer, weights_cache: WeightsCache) -> None:
    repository = _publish(hub, model_safetensors=_content(1000))
    _reader(hub, repository, weights_cache).read(repository.files, _read_three)

    def ask() -> None:
        raise AssertionError

    reader = HeadReader(repository, weights_cache, ask, ignore)  # type: ignore[arg-type]
    assert reader.read(repository.files, _read_three) == {NAME: _content(3)}


def test_many_files_are_read_a_few_at_once_and_told(hub: HubServer, weights_cache: WeightsCache) -> None:
    files = {f"model-{index:05}-of-00030.safetensors": _content(100 + index) for index in range(30)}
    hub.publish(REPO, files)
    repository = hub.door().describe(REPO, "main", lambda: None)
    told: list[tuple[str, float | None]] = []
    running, most, lock = 0, 0, threading.Lock()

    def parse(file: OpenFile) -> bytes:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        try:
            return file.stream.read(file.size_bytes)
        finally:
            with lock:
                running -= 1

    reader = HeadReader(repository, weights_cache, hub.door, lambda *told_now: told.append(told_now))
    assert reader.read(repository.files, parse) == files
    assert 1 < most <= 4
    assert told[-1] == (f"reading headers at {hub.endpoint}: 30 of 30 files", 1.0)


def test_reading_is_given_up_when_progress_raises(hub: HubServer, weights_cache: WeightsCache) -> None:
    hub.publish(REPO, {f"{index}.safetensors": _content(100_000) for index in range(12)})
    repository = hub.door().describe(REPO, "main", lambda: None)
    for index in range(12):
        hub.fail(f"{index}.safetensors", Fault(bytes_per_s=20_000))

    def give_up(_stage: str, _fraction: float | None) -> None:
        raise KeyError("enough")

    with pytest.raises(KeyError, match="enough"):
        HeadReader(repository, weights_cache, hub.door, give_up).read(
            repository.files, lambda file: file.stream.read(50_000)
        )
    assert len([seen for seen in hub.seen if seen.where == "storage"]) <= 4
    assert not list(weights_cache.root.rglob("*.heads"))


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (Fault(status=403), r"model\.safetensors of acme/tiny is gated \(403\)"),
        (Fault(status=404), r"model\.safetensors of acme/tiny \(404\)"),
        (Fault(drop_after=10), "connection to http://.* broke"),
        (Fault(content=bytes(999)), "has 999 bytes at the hub, which lists it with 1,000"),
    ],
)
def test_what_cannot_be_had_is_one_sentence(
    hub: HubServer, weights_cache: WeightsCache, fault: Fault, words: str
) -> None:
    repository = _publish(hub, model_safetensors=_content(1000))
    hub.fail(NAME, fault)
    with pytest.raises(WeightsError, match=words):
        _reader(hub, repository, weights_cache).read(repository.files, _read_three)


def test_a_hub_that_lists_no_sizes(hub: HubServer, weights_cache: WeightsCache) -> None:
    hub.has_digests = False
    repository = _publish(hub, model_safetensors=_content(1000))
    reader = _reader(hub, repository, weights_cache)
    assert reader.read(repository.files, lambda file: file.size_bytes) == {NAME: 1000}
    assert reader.read(repository.files, _read_three) == {NAME: _content(3)}
    assert len(hub.requests(NAME)) == 2, "the beginning alone does not tell the size, so it is not kept"
