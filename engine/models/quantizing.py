"""Quantizing a model into a folder of its own: at once, or in the background of a console."""

from __future__ import annotations

import shutil
import threading
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from engine.clock import Clock
from engine.errors import WeightsError
from engine.models.release import release_memory, weights_apart
from engine.models.spec import ModelSpec, Quantization
from engine.staged_job import OnProgress, StagedJob
from engine.weights.sources import find_source
from engine.weights.store import WeightsStore

_LOCK_WAIT_S = 0.2
_BFLOAT16_BYTES = 2


@dataclass(frozen=True, slots=True)
class QuantizedFolder:
    """A model that was saved quantized. `weights_bytes` are in memory, `size_bytes` in the folder, and `plain_bytes` is
    what its weights take in bfloat16."""

    name: str
    folder: Path
    quantization: Quantization | None
    weights_bytes: int
    size_bytes: int
    plain_bytes: int

    @property
    def size_ratio(self) -> float:
        """The folder's size against the weights in bfloat16."""
        return self.size_bytes / self.plain_bytes


def propose_output(parent: Path, spec: ModelSpec) -> Path:
    """A folder in `parent` that is not there yet, named after model and scheme: `SmolLM2-int8-weight`.

    Raises:
        WeightsError: the source names nothing.
    """
    scheme = "" if spec.quantization is None else f"-{spec.quantization.scheme}"
    name = f"{find_source(spec.source).name}{scheme}"
    candidates = (parent / (f"{name}-{number}" if number > 1 else name) for number in count(1))
    return next(folder for folder in candidates if not folder.exists())


def check_output(folder: Path) -> None:
    """Raise WeightsError where `folder` is not new or empty, or its name can be none."""
    try:
        is_taken = folder.exists() and (not folder.is_dir() or any(folder.iterdir()))
    except OSError as error:
        raise WeightsError(f"{str(folder)[:200]} cannot be used: {error.strerror}; name another folder") from error
    if is_taken:
        raise WeightsError(f"{folder} is there already: name a folder that is new or empty")


def quantize_to(folder: Path, spec: ModelSpec, weights: WeightsStore, on_progress: OnProgress) -> QuantizedFolder:
    """Load `spec`, which says how to quantize, and save it in `folder`, which is new or empty. torch is imported for
    that, and not before.

    Raises:
        WeightsError: the folder holds something, the model cannot be loaded so, or the folder cannot be written.
    """
    check_output(folder)
    on_progress("starting torch", None)
    from engine.models.loader import load_model
    from engine.models.saved import save_quantized

    loaded = load_model(spec, weights, on_progress)
    on_progress("saving", None)
    was_there = folder.exists()
    try:
        save_quantized(loaded, folder)
    except BaseException:
        _clear(folder, was_there=was_there)
        raise
    size_bytes = sum(file.stat().st_size for file in folder.iterdir())
    plain_bytes = loaded.info.num_parameters * _BFLOAT16_BYTES
    return QuantizedFolder(loaded.name, folder, spec.quantization, loaded.info.weights_bytes, size_bytes, plain_bytes)


def _clear(folder: Path, *, was_there: bool) -> None:
    """Take away what was written in a folder that was new or empty before."""
    for found in folder.glob("*"):
        if found.is_dir():
            shutil.rmtree(found)
        else:
            found.unlink()
    if not was_there and folder.is_dir():
        folder.rmdir()


class Quantizing(StagedJob[QuantizedFolder]):
    """Quantizes models behind a console, one at a time, in turn with those that load one (`load_lock`)."""

    def __init__(self, weights: WeightsStore, load_lock: threading.Lock, clock: Clock) -> None:
        super().__init__("quantize", "the quantization", clock)
        self._weights, self._load_lock = weights, load_lock

    def quantize(self, spec: ModelSpec, folder: Path) -> None:
        """Begin to quantize `spec` into `folder`.

        Raises:
            WeightsError: the folder is not new or empty.
            JobRunningError: another one is under way.
        """
        check_output(folder)
        self._start(f"{spec.source} into {folder}", lambda tell: self._quantize(spec, folder, tell))

    def _quantize(self, spec: ModelSpec, folder: Path, tell: OnProgress) -> QuantizedFolder:
        while not self._load_lock.acquire(timeout=_LOCK_WAIT_S):
            tell("waiting for another model to load", None)
        try:
            with weights_apart():
                return quantize_to(folder, spec, self._weights, tell)
        finally:
            release_memory()
            self._load_lock.release()
