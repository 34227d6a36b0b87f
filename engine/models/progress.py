"""transformers' progress bars, and the bytes it reads of safetensors, told to a callback.

`transformers.modeling_utils.safe_open` and its progress bars are replaced while a load runs. Process-wide: loads take
turns.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import transformers
from transformers import modeling_gguf_pytorch_utils, modeling_utils

Progress = Callable[[str, float | None], None]

transformers.utils.logging.set_verbosity_error()


class ByteMeter:
    """Counts bytes against a total and tells how far and how fast: `loading weights, 1.2 of 16.1 GB, 2.4 GB/s`."""

    def __init__(self, on_progress: Progress, stage: str, total_bytes: int) -> None:
        self._on_progress = on_progress
        self._stage = stage
        self.total_bytes = total_bytes
        self.read_bytes = 0
        self._began_s = time.perf_counter()

    def count(self, num_bytes: int) -> None:
        """Count, from any thread."""
        self.read_bytes += num_bytes

    def report(self) -> None:
        """Tell the callback, which may raise to end the load."""
        read, total = min(self.read_bytes, self.total_bytes), self.total_bytes
        speed = f"{read / 1e9:.2f} of {total / 1e9:.2f} GB, {self.bytes_per_s / 1e9:.1f} GB/s"
        self._on_progress(f"{self._stage}, {speed}", read / total if total else None)

    def finish(self) -> None:
        """All is read."""
        self.read_bytes = self.total_bytes
        self.report()

    @property
    def bytes_per_s(self) -> float:
        return self.read_bytes / max(time.perf_counter() - self._began_s, 1e-9)


@contextmanager
def reading_metered(meter: ByteMeter) -> Iterator[None]:
    """Have transformers' reading of safetensors counted by `meter`, reported as tensors take their places."""
    module: Any = modeling_utils
    original = module.safe_open

    def open_counted(*args: Any, **kwargs: Any) -> Any:
        return _CountedFile(original(*args, **kwargs), meter)

    module.safe_open = open_counted
    try:
        with bars_told(lambda _fraction: meter.report()):
            yield
    finally:
        module.safe_open = original


class _CountedFile:
    """A safetensors file whose slices count what is read of them."""

    def __init__(self, file: Any, meter: ByteMeter) -> None:
        self._file, self._meter = file, meter

    def __enter__(self) -> _CountedFile:
        self._file.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._file.__exit__(*error)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def get_slice(self, name: str) -> _CountedSlice:
        return _CountedSlice(self._file.get_slice(name), self._meter)


class _CountedSlice:
    def __init__(self, part: Any, meter: ByteMeter) -> None:
        self._part, self._meter = part, meter

    def __getattr__(self, name: str) -> Any:
        return getattr(self._part, name)

    def __getitem__(self, index: Any) -> Any:
        tensor = self._part[index]
        self._meter.count(tensor.nbytes)
        return tensor


@contextmanager
def bars_told(on_fraction: Callable[[float | None], None]) -> Iterator[None]:
    """Send transformers' own progress bars to the callback instead of the terminal. Its reader of GGUF files takes
    tqdm's bar past the hook."""

    def hook(_factory: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> _ProgressBar:
        return _ProgressBar(on_fraction, *args, **kwargs)

    logging: Any = transformers.utils.logging
    gguf_reader: Any = modeling_gguf_pytorch_utils
    previous, previous_bar = logging.set_tqdm_hook(hook), gguf_reader.tqdm
    gguf_reader.tqdm = functools.partial(_ProgressBar, on_fraction)
    try:
        yield
    finally:
        logging.set_tqdm_hook(previous)
        gguf_reader.tqdm = previous_bar


class _ProgressBar:
    """What transformers needs of tqdm, reporting to a callback."""

    def __init__(
        self, on_fraction: Callable[[float | None], None], iterable: Any = None, total: int | None = None, **_: Any
    ) -> None:
        self._iterable = iterable
        self._total = total if total is not None else (len(iterable) if hasattr(iterable, "__len__") else None)
        self._done = 0
        self._on_fraction = on_fraction

    def __iter__(self) -> Iterator[Any]:
        for item in self._iterable:
            yield item
            self.update()

    def __enter__(self) -> _ProgressBar:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def update(self, count: int = 1) -> None:
        self._done += count
        self._on_fraction(self._done / self._total if self._total else None)

    def set_postfix(self, *_: Any, **__: Any) -> None:
        """Details of the current tensor: not shown."""

    def set_description(self, *_: Any, **__: Any) -> None:
        """The stage's name is ours."""

    def refresh(self) -> None:
        """Nothing is drawn here."""

    def close(self) -> None:
        """The next stage reports for itself."""
