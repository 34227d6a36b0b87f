from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.clock import SystemClock
from engine.errors import WeightsError
from engine.job import JobRunningError
from engine.models.quantizing import Quantizing, propose_output
from engine.models.schemes import Ability, default_quantization
from engine.models.spec import ModelSpec, Scheme
from engine.weights.store import plain_weights
from tests.fakes import wait_until

INT8 = default_quantization(Scheme.INT8_WEIGHT, Ability())


@pytest.fixture
def lock() -> threading.Lock:
    return threading.Lock()


@pytest.fixture
def quantizing(tmp_path: Path, lock: threading.Lock) -> Iterator[Quantizing]:
    one = Quantizing(plain_weights(tmp_path / "weights"), lock, SystemClock())
    yield one
    one.close()


def test_a_folder_is_proposed_that_is_not_there_yet(tmp_path: Path) -> None:
    spec = ModelSpec("acme/tiny@main", quantization=INT8)
    assert propose_output(tmp_path, spec) == tmp_path / "tiny-int8-weight"
    (tmp_path / "tiny-int8-weight").mkdir()
    (tmp_path / "tiny-int8-weight-2").touch()
    assert propose_output(tmp_path, spec) == tmp_path / "tiny-int8-weight-3"
    with pytest.raises(WeightsError, match="neither a folder nor a file"):
        propose_output(tmp_path, ModelSpec("/nowhere", quantization=INT8))


def test_a_folder_that_is_taken_or_cannot_be_is_refused(quantizing: Quantizing, tmp_path: Path) -> None:
    spec = ModelSpec("sample", quantization=INT8)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    for folder, words in (
        (tmp_path / "full", "is there already"),
        (tmp_path / "full" / "file", "is there already"),
        (tmp_path / ("x" * 300), "File name too long; name another folder"),
    ):
        with pytest.raises(WeightsError, match=words):
            quantizing.quantize(spec, folder)
    assert quantizing.progress() is None


def test_what_was_saved_is_told_with_its_ratio(quantizing: Quantizing, tiny_folder: Path, tmp_path: Path) -> None:
    assert quantizing.subject is None
    quantizing.quantize(ModelSpec(str(tiny_folder), device="cpu", quantization=INT8), tmp_path / "out")
    quantizing.wait(60)
    made = quantizing.report()
    assert made is not None, quantizing.error
    assert (made.folder, made.quantization) == (tmp_path / "out", INT8)
    assert quantizing.subject == f"{tiny_folder} into {tmp_path / 'out'}"
    assert made.plain_bytes == 2 * 94_784
    assert made.size_bytes == sum(file.stat().st_size for file in made.folder.iterdir())
    assert made.size_ratio == pytest.approx(made.size_bytes / made.plain_bytes)


@pytest.mark.parametrize("was_there", [False, True])
def test_what_does_not_fit_on_the_disk_leaves_nothing_behind(
    quantizing: Quantizing, tiny_folder: Path, small_disk: Path, was_there: bool
) -> None:
    folder = small_disk / "out"
    if was_there:
        folder.mkdir()
    quantizing.quantize(ModelSpec(str(tiny_folder), device="cpu", quantization=INT8), folder)
    quantizing.wait(60)
    assert "free space there or choose another folder" in (quantizing.error or "")
    assert list(small_disk.rglob("*")) == ([folder] if was_there else [])


def test_a_cancelled_one_writes_nothing_and_another_has_to_wait(
    quantizing: Quantizing, lock: threading.Lock, tiny_folder: Path, tmp_path: Path
) -> None:
    spec = ModelSpec(str(tiny_folder), device="cpu", quantization=INT8)
    with lock:
        quantizing.quantize(spec, tmp_path / "out")
        wait_until(lambda: (now := quantizing.progress()) is not None and now.stage.startswith("waiting"))
        with pytest.raises(JobRunningError, match="wait for its end, or cancel it"):
            quantizing.quantize(spec, tmp_path / "other")
        assert not quantizing.is_cancelled
        quantizing.cancel()
        quantizing.wait(30)
    assert (quantizing.is_cancelled, quantizing.report(), quantizing.error) == (True, None, None)
    assert not (tmp_path / "out").exists()
    assert not lock.locked()
