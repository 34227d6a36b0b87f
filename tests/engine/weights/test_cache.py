from __future__ import annotations

import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from engine.errors import WeightsError
from engine.weights.cache import WeightsCache
from engine.weights.integrity import sha256_of

_CONVERT_FOR_EVER = """
import sys, time
from pathlib import Path
from engine.weights.cache import WeightsCache

def convert(folder):
    (folder / "half.safetensors").write_bytes(bytes(1000))
    print("half", flush=True)
    time.sleep(60)

WeightsCache(Path(sys.argv[1])).folder_for(Path(sys.argv[2]), convert)
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    file = tmp_path / "m.gguf"
    file.write_bytes(b"GGUF" + bytes(100))
    return file


@pytest.fixture
def cache(tmp_path: Path) -> WeightsCache:
    return WeightsCache(tmp_path / "home" / "weights")


class Conversion:
    """Writes one file, and counts how often it was asked to."""

    def __init__(self, num_bytes: int = 10) -> None:
        self.count = 0
        self._num_bytes = num_bytes

    def __call__(self, folder: Path) -> None:
        self.count += 1
        (folder / "model.safetensors").write_bytes(bytes(self._num_bytes))


def test_converted_once_and_named_by_its_digest(cache: WeightsCache, source: Path) -> None:
    convert = Conversion()
    folder = cache.folder_for(source, convert)
    assert folder == cache.root / sha256_of(source)
    assert [path.name for path in folder.iterdir()] == ["model.safetensors"]
    assert WeightsCache(cache.root).folder_for(source, convert) == folder
    assert convert.count == 1


def test_another_content_is_another_folder(cache: WeightsCache, source: Path) -> None:
    convert = Conversion()
    first = cache.folder_for(source, convert)
    source.write_bytes(b"GGUF" + bytes(101))
    assert cache.folder_for(source, convert) != first
    assert convert.count == 2


def test_the_digest_is_remembered(cache: WeightsCache, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = cache.folder_for(source, Conversion())

    def refuse(_file: Path) -> str:
        raise AssertionError("hashed again")

    monkeypatch.setattr("engine.weights.cache.sha256_of", refuse)
    assert cache.folder_for(source, Conversion()) == folder


def test_a_damaged_index_of_digests_is_made_anew(cache: WeightsCache, source: Path) -> None:
    folder = cache.folder_for(source, Conversion())
    for text in ("", "{", "[]", "null"):
        (cache.root / "digests.json").write_text(text)
        assert cache.folder_for(source, Conversion()) == folder


def test_a_conversion_that_raises_leaves_nothing(cache: WeightsCache, source: Path) -> None:
    def convert(folder: Path) -> None:
        (folder / "half").touch()
        raise WeightsError("not a model")

    with pytest.raises(WeightsError, match="not a model"):
        cache.folder_for(source, convert)
    assert not [path for path in cache.root.iterdir() if path.is_dir()]
    convert_now = Conversion()
    cache.folder_for(source, convert_now)
    assert convert_now.count == 1


def test_a_killed_conversion_does_not_trip_the_next_start(cache: WeightsCache, source: Path) -> None:
    command = [sys.executable, "-c", _CONVERT_FOR_EVER, str(cache.root), str(source)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "half\n"
        process.send_signal(signal.SIGKILL)
        process.wait(10)
    assert list(cache.root.glob(".incomplete-*"))
    convert = Conversion()
    folder = cache.folder_for(source, convert)
    assert convert.count == 1
    assert [path for path in cache.root.iterdir() if path.is_dir()] == [folder]


def test_two_at_once_convert_once(cache: WeightsCache, source: Path) -> None:
    convert, folders = Conversion(), []
    began, go_on = threading.Event(), threading.Event()

    def slowly(folder: Path) -> None:
        began.set()
        assert go_on.wait(10)
        convert(folder)

    threads = [
        threading.Thread(target=lambda: folders.append(WeightsCache(cache.root).folder_for(source, slowly)))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    assert began.wait(10)
    go_on.set()
    for thread in threads:
        thread.join(10)
    assert len(set(folders)) == 1
    assert len(folders) == 2
    assert convert.count == 1


def test_a_full_disk_is_one_sentence(small_disk: Path, source: Path) -> None:
    with pytest.raises(WeightsError, match=r"No space left on device; free space there or set CONSOLE_HOME"):
        WeightsCache(small_disk / "weights").folder_for(source, Conversion(1_000_000))
    assert not list((small_disk / "weights").glob(".incomplete-*"))
    WeightsCache(small_disk / "weights").folder_for(source, Conversion(1_000))


def test_a_read_only_disk_is_one_sentence(small_disk: Path, source: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(WeightsError, match=r"cannot write the weights cache .*Read-only file system"):
        WeightsCache(small_disk / "weights").folder_for(source, Conversion())


def test_what_is_converted_already_is_served_from_a_read_only_disk(small_disk: Path, source: Path) -> None:
    cache = WeightsCache(small_disk / "weights")
    folder = cache.folder_for(source, Conversion())
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    assert cache.folder_for(source, Conversion()) == folder


def test_a_file_in_the_folders_place(tmp_path: Path, source: Path) -> None:
    (tmp_path / "weights").touch()
    with pytest.raises(WeightsError, match="cannot write the weights cache"):
        WeightsCache(tmp_path / "weights").folder_for(source, Conversion())


def test_a_source_that_went_away_is_not_blamed_on_the_cache(cache: WeightsCache, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"gone\.gguf cannot be read: No such file"):
        cache.folder_for(tmp_path / "gone.gguf", Conversion())
